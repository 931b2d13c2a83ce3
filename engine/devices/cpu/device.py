"""The CPU: numpy's memory, OpenVINO's networks, and the ops of rbc_engine.devices.cpu.ops.

Compiled networks are not cached on disk. OpenVINO compiles these graphs in under a second, its
cache saves a tenth of that at 140 MB a shape, and it answers wrongly from a damaged file without
noticing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from rbc_engine.closing import Closing
from rbc_engine.devices.base import HostArray, Ops
from rbc_engine.devices.cpu import ops
from rbc_engine.errors import DeviceError, UsageError
from rbc_engine.meter import Meter
from rbc_engine.types.frames import DevicePixels

__all__ = ["HostDevice", "HostNetwork", "host_precisions"]

# The key by which an ONNX tensor names a file for its data; OpenVINO would read that file.
_ONNX_EXTERNAL_DATA = b"location"


class HostNetwork:
    """Run a compiled network with one lane's buffers; see rbc_engine.devices.base.Network."""

    def __init__(
        self,
        compiled: ov.CompiledModel,
        *,
        shapes: Mapping[str, tuple[int, ...]],
        outputs: Sequence[str],
        meter: Meter | None = None,
    ) -> None:
        self._compiled = compiled
        self._meter = meter or Meter()
        self._request = compiled.create_infer_request()
        self._inputs = {
            name: (compiled.input(name).element_type.to_dtype(), shape)
            for name, shape in shapes.items()
        }
        self._outputs = list(outputs)

    def __call__(self, inputs: Mapping[str, HostArray]) -> dict[str, HostArray]:
        """Run it, without the GIL and without copying the inputs.

        inputs: C-contiguous arrays of the shapes that it was loaded with, uint8 where the graph's
            input is, else float32.

        Returns float32 arrays that the next call overwrites. Raises ValueError for a wrong input,
        DeviceError if OpenVINO fails.
        """
        if inputs.keys() != self._inputs.keys():
            raise ValueError(f"inputs must be {sorted(self._inputs)} (got {sorted(inputs)})")
        for name, (dtype, shape) in self._inputs.items():
            array = inputs[name]
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(
                    f"input {name} must be {dtype} {list(shape)} (got {array.dtype} "
                    f"{list(array.shape)})"
                )
            if not array.flags.c_contiguous:
                raise ValueError(
                    f"input {name} must be C-contiguous; pass np.ascontiguousarray(array)"
                )
        try:
            with self._meter.network():
                results = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise DeviceError(f"OpenVINO failed to run a network: {_reason(error)}") from error
        return {name: results[name] for name in self._outputs}

    @property
    def threads(self) -> int:
        """Return the number of CPU threads that the network may use, over all its lanes."""
        return int(self._compiled.get_property("INFERENCE_NUM_THREADS"))

    def layer_precisions(self) -> list[tuple[str, str]]:
        """Return type and precision of each compiled layer, e.g. ('Convolution', 'bf16')."""
        layers = (layer.get_rt_info() for layer in self._compiled.get_runtime_model().get_ops())
        return [
            (info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in layers
        ]


class HostDevice(Closing):
    """Represent the CPU as a device; see rbc_engine.devices.base.Device.

    notes: why it does not compute in a faster precision, if it does not.
    """

    def __init__(
        self, *, precision: str = "auto", lanes: int = 1, threads: int | None = None
    ) -> None:
        """Open the CPU.

        precision: one of host_precisions(), or 'auto' for the fastest that needs no calibration.

        lanes: how many networks run side by side.
        threads: CPU threads for all of them together; None for the cores that this process may use.

        Raises UsageError for a value that this CPU or this class does not offer.
        """
        self.ops: Ops[HostArray] = ops
        self._core = _core()
        choices = host_precisions()
        if precision not in ("auto", *choices):
            raise UsageError(
                f"precision must be one of auto, {', '.join(choices)} on this CPU (got "
                f"{precision!r})"
            )
        floats = [name for name in choices if name != "int8"]
        if threads is None:
            threads = len(os.sched_getaffinity(0))
        for name, value in {"lanes": lanes, "threads": threads}.items():
            if value < 1:
                raise UsageError(f"{name} must be at least 1 (got {value})")
        self.precision = floats[0] if precision == "auto" else precision
        self.name = f"cpu: {self._core.get_property('CPU', 'FULL_DEVICE_NAME').strip()}"
        self.backend = f"OpenVINO {ov.__version__.split('-')[0]}"
        self.notes: list[str] = []
        if floats == ["fp32"] and self.precision == "fp32":
            self.notes.append("precision fp32: this CPU has no bf16 arithmetic")
        self._config = {
            "PERFORMANCE_HINT": "THROUGHPUT" if lanes > 1 else "LATENCY",
            "NUM_STREAMS": lanes,
            "INFERENCE_NUM_THREADS": threads,
            # What is not quantised at int8 is little, and is worth the better answer.
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            # Two processes would pin their threads to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled: dict[tuple[Any, ...], ov.CompiledModel] = {}
        self._locks: dict[tuple[Any, ...], threading.Lock] = {}
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Do nothing: every thread may use the CPU."""

    def lane(self) -> HostDevice:
        """Return the device itself: its networks keep their lanes apart."""
        return self

    def free_bytes(self) -> None:
        """Return None: the host's free memory does not limit lanes."""

    def upload(self, array: HostArray | DevicePixels) -> HostArray:
        """Return the array itself: it is in this device's memory already."""
        if not isinstance(array, np.ndarray):
            raise ValueError(
                f"array must be numpy's (got {type(array).__name__} in the memory of {array.place})"
            )
        return array

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> HostArray:
        return np.empty(tuple(shape), dtype)

    def download(self, *arrays: HostArray) -> tuple[HostArray, ...]:
        """Return the arrays themselves: they are in the host's memory already."""
        return arrays

    def load_classifier(
        self,
        onnx: bytes,
        *,
        heads: bytes,
        shape: tuple[int, int, int, int],
        meter: Meter | None = None,
    ) -> HostNetwork:
        """See rbc_engine.devices.base.Device.load_classifier."""
        return self.load(onnx, outputs=["probabilities"], shapes={"patches": shape}, meter=meter)

    def load(
        self,
        onnx: bytes,
        *,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        meter: Meter | None = None,
    ) -> HostNetwork:
        """See rbc_engine.devices.base.Device.load. `shapes` names every input of the graph."""
        # One compiled graph serves every batch size: it costs no speed, and compiling ResNet-50 for
        # each of three would take longer than the first few fields.
        of_one = {name: shape[1:] for name, shape in shapes.items()}
        key = (onnx, tuple(outputs), tuple(sorted(of_one.items())))
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._compiled:
                try:
                    self._compiled[key] = self._compile(onnx, outputs, of_one)
                except RuntimeError as error:
                    raise DeviceError(
                        f"OpenVINO cannot compile a network: {_reason(error)}"
                    ) from error
            compiled = self._compiled[key]
            return HostNetwork(compiled, shapes=shapes, outputs=outputs, meter=meter)

    def _compile(
        self, onnx: bytes, outputs: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
    ) -> ov.CompiledModel:
        """Compile a graph. shapes: of one sample, without the batch."""
        if _ONNX_EXTERNAL_DATA in onnx:
            raise DeviceError(
                "the network keeps tensors in other files; save the ONNX model as one file"
            )
        model = self._core.read_model(onnx)
        _check_names("inputs", shapes, of=model.inputs, every=True)
        _check_names("outputs", outputs, of=model.outputs)
        for port in model.outputs:
            if port.names.isdisjoint(outputs):
                model.remove_result(port.get_node())
        model.reshape({name: [-1, *shape] for name, shape in shapes.items()})
        types = ov.preprocess.PrePostProcessor(model)
        for name in shapes:
            if model.input(name).element_type != ov.Type.u8:
                types.input(name).tensor().set_element_type(ov.Type.f32)
        for name in outputs:
            types.output(name).tensor().set_element_type(ov.Type.f32)
        return self._core.compile_model(types.build(), "CPU", self._config)

    def close(self) -> None:
        """Forget the compiled networks; those already handed out go on working."""
        self._compiled.clear()

    def __repr__(self) -> str:
        return f"HostDevice({self.name!r}, {self.backend}, {self.precision})"


def host_precisions() -> list[str]:
    """Return the precisions of this CPU, fastest first.

    int8 with VNNI only: older instructions add up pairs of products in 16 bits, which overflows.
    """
    found = ["fp32"]
    if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        found.insert(0, "bf16")
    if _has_vnni():
        found.insert(0, "int8")
    return found


def _has_vnni() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(flags)


@lru_cache(maxsize=1)
def _core() -> ov.Core:
    return ov.Core()


def _check_names(
    kind: str, asked: Iterable[str], *, of: Sequence[ov.Output], every: bool = False
) -> None:
    """Raise DeviceError unless the graph has the tensors asked for.

    A tensor may have several names: OpenVINO removes steps that change nothing, and joins their
    names.
    """
    asked = set(asked)
    named = [asked & port.names for port in of]
    if not asked or asked - set().union(*named) or (every and not all(named)):
        have = [port.any_name for port in of]
        raise DeviceError(f"the network has the {kind} {have} (got {sorted(asked)})")


def _reason(error: RuntimeError) -> str:
    """Return OpenVINO's message without the lines that name its own source files."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from"))
