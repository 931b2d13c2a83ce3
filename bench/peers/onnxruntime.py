"""Run the pack's own graphs in ONNX Runtime, with the engine's kernels between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rbc_engine.bench.peers.fp32_graph import as_fp32
from rbc_engine.closing import Closing
from rbc_engine.devices.base import HostArray, Ops
from rbc_engine.devices.cpu import ops
from rbc_engine.errors import RbcError
from rbc_engine.lanes.lane import Lane
from rbc_engine.lanes.stages.call import Caller
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.meter import Meter
from rbc_engine.packs.pack import Pack
from rbc_engine.sources.images.decode import read_image
from rbc_engine.types.frames import Decoded, DevicePixels, FieldRef, Frame
from rbc_engine.types.regions import Regions

__all__ = ["OnnxRuntimePeer"]

_PATCHES = (4, 16, 64)


class OnnxRuntimePeer:
    """Run a lane of the engine with networks in ONNX Runtime, in fp32, on all cores, one field
    after the other.
    """

    name = "onnxruntime"
    precision = "fp32"

    def __init__(self, pack: Pack, *, threads: int) -> None:
        self.description = (
            f"ONNX Runtime {ort.__version__}, the pack's graphs in fp32, the engine's kernels"
        )
        self._lane = Lane(
            _OnnxRuntimeDevice(threads),
            pack,
            Caller(pack),
            batch_frames=1,
            batch_patches=_PATCHES,
            threads=threads,
            meter=Meter(),
            field_prior=FieldPrior.of(pack.manifest.classifier),
        )

    def analyze(self, ref: FieldRef) -> Regions:
        frame = Frame(pixels=read_image(ref.path, name=ref.field))
        (result,) = self._lane.analyze([Decoded(ref=ref, frame=frame)])
        if result.regions is None:
            raise RbcError(result.error)
        return result.regions

    def close(self) -> None:
        self._lane.close()


class _OnnxRuntimeDevice(Closing):
    """Provide the device of that lane; see rbc_engine.devices.base.Device."""

    name, backend, precision = "cpu", f"ONNX Runtime {ort.__version__}", "fp32"

    def __init__(self, threads: int) -> None:
        self.ops: Ops[HostArray] = ops
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        # Waiting threads must not take the cores from whatever is measured next.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions: dict[bytes, ort.InferenceSession] = {}

    def enter(self) -> None:
        """Do nothing: every thread may use the CPU."""

    def lane(self) -> _OnnxRuntimeDevice:
        return self

    def free_bytes(self) -> None:
        """Return None: the host's free memory does not limit lanes."""

    def upload(self, array: HostArray | DevicePixels) -> HostArray:
        return array if isinstance(array, np.ndarray) else array.to_host()

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> HostArray:
        return np.empty(tuple(shape), dtype)

    def download(self, *arrays: HostArray) -> tuple[HostArray, ...]:
        return arrays

    def load_classifier(self, onnx: bytes, **options: Any) -> _OnnxRuntimeNetwork:
        return self.load(onnx, outputs=["probabilities"], **options)

    def load(self, onnx: bytes, *, outputs: Sequence[str], **_: Any) -> _OnnxRuntimeNetwork:
        if onnx not in self._sessions:
            self._sessions[onnx] = ort.InferenceSession(
                as_fp32(onnx), self._options, providers=["CPUExecutionProvider"]
            )
        return _OnnxRuntimeNetwork(self._sessions[onnx], outputs)

    def close(self) -> None:
        """Forget the networks; those already handed out go on working."""
        self._sessions.clear()


class _OnnxRuntimeNetwork:
    def __init__(self, session: ort.InferenceSession, outputs: Sequence[str]) -> None:
        self._session = session
        self._outputs = list(outputs)

    def __call__(self, inputs: Mapping[str, HostArray]) -> dict[str, HostArray]:
        results = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, results, strict=True))
