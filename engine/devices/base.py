"""What a device offers to the stages: memory, networks, and ops; and the record of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rbc_engine.meter import Meter
from rbc_engine.types.arrays import Float32, Int32
from rbc_engine.types.frames import HOST, DevicePixels, Place

__all__ = [
    "RGB",
    "AnyDevice",
    "Array",
    "BuildWatch",
    "Device",
    "DeviceArray",
    "DeviceChoice",
    "DeviceKind",
    "HostArray",
    "Network",
    "OpenDevice",
    "Ops",
]

RGB = tuple[float, float, float]

HostArray = npt.NDArray[Any]

Itself = TypeVar("Itself")


class DeviceArray(Protocol):
    """Represent an array in the memory of a device: numpy on the host, CudaArray on a GPU."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self: Itself, rows: slice, /) -> Itself:
        """Cut along the first axis, in the same memory."""
        ...

    def __setitem__(self: Itself, rows: slice, value: Itself | int, /) -> None:
        """Take an array of the same shape and type, or 0, into a slice."""
        ...


Array = TypeVar("Array", bound=DeviceArray)
"""The kind of array that one device has: what it makes, its networks and its ops take."""


class BuildWatch(Protocol):
    """Report the compilation of networks to whoever waits. Called from any thread."""

    def line(self, text: str) -> None:
        """Report in one line what is compiled, and why."""
        ...

    def progress(self, phase: str, done: int, total: int) -> bool:
        """Report `done` of `total` steps of a phase. Return False to stop the compilation."""
        ...


class Network(Protocol[Array]):
    """Run a compiled network.

    One object serves one lane at a time; `Device.load` gives each lane its own.
    """

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run it. Outputs are valid until the next call of this object."""
        ...


class Ops(Protocol[Array]):
    """Run the kernels between the networks. rbc_engine.devices.cpu.ops says what each does.

    A result may be overwritten by the next call of the same op in the same lane. Every op raises
    ValueError naming the argument at fault. threads: CPU threads that it may use; a GPU needs none.
    """

    def resize_letterbox(
        self,
        frames: Sequence[Array],
        resized_hw: Int32,
        *,
        canvas_hw: tuple[int, int],
        background_level: float | None = None,
        threads: int = 1,
    ) -> Array: ...

    def generate_proposals(
        self,
        objectness: Sequence[Array],
        deltas: Sequence[Array],
        *,
        base_anchors: Sequence[Float32],
        strides_px: Sequence[int],
        image_hw: Int32,
        per_level: int,
        keep: int,
        nms_iou: float,
        threads: int = 1,
    ) -> tuple[Array, Array]: ...

    def roi_align(
        self,
        features: Sequence[Array],
        boxes: Array,
        counts: Array,
        *,
        strides_px: Sequence[int],
        output_size: int,
        sampling_ratio: int,
        canonical_px: float,
        canonical_level: int,
        threads: int = 1,
    ) -> Array: ...

    def postprocess_detections(
        self,
        class_logits: Array,
        box_deltas: Array,
        proposals: Array,
        counts: Array,
        *,
        image_hw: Int32,
        frame_hw: Int32,
        score_threshold: float,
        nms_iou: float,
        max_regions: int,
        threads: int = 1,
    ) -> tuple[Array, Array, Array, Array, Array]: ...

    def crop_resize(
        self,
        frames: Sequence[Array],
        windows: Float32,
        frame_index: Int32,
        *,
        size_px: int,
        mean: RGB,
        std: RGB,
        threads: int = 1,
    ) -> Array: ...


class Device(Protocol[Array]):
    """Represent a CPU or a GPU to one lane: work is done in the order of the calls.

    Used by one thread at a time; each calls `enter` before anything else.
    """

    @property
    def name(self) -> str:
        """Name it as doctor and run.json do, e.g. 'cpu: AMD EPYC'."""
        ...

    @property
    def backend(self) -> str:
        """Name the library that runs the networks, with its version, e.g. 'OpenVINO 2026.4'."""
        ...

    @property
    def precision(self) -> str:
        """Say what the networks compute in: 'fp32', 'bf16', 'fp16', 'int8' or 'fp8'."""
        ...

    @property
    def ops(self) -> Ops[Array]:
        """Return the ops for this device's arrays."""
        ...

    def enter(self) -> None:
        """Make the device the current one of the calling thread."""
        ...

    def lane(self) -> Device[Array]:
        """Return the same device for another lane, whose work is not ordered with this one's."""
        ...

    def free_bytes(self) -> int | None:
        """Return the free memory in bytes; None on the host, where it does not matter."""
        ...

    def upload(self, array: HostArray | Array | DevicePixels) -> Array:
        """Return the array on this device: itself if it is there already.

        It may be changed after the next `download`.

        Raises ValueError for pixels that lie in the memory of another device.
        """
        ...

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        """Return memory without defined content."""
        ...

    def download(self, *arrays: Array) -> tuple[HostArray, ...]:
        """Wait for all work so far, and return the arrays on the host."""
        ...

    def load(
        self,
        onnx: bytes,
        *,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        meter: Meter | None = None,
    ) -> Network[Array]:
        """Compile an ONNX graph for fixed input shapes, keeping only the named outputs.

        Inputs and outputs are float32 or uint8 on the host whatever types the graph has, and of the
        graph's types on a GPU. The same graph, outputs and shapes are compiled once; each call
        gives an object that may run beside those of other lanes. meter: notified when the network
        runs. Raises DeviceError if the graph does not compile.
        """
        ...

    def load_classifier(
        self,
        onnx: bytes,
        *,
        heads: bytes,
        shape: tuple[int, int, int, int],
        meter: Meter | None = None,
    ) -> Network[Array]:
        """Load the classifier of a pack: `patches` [N, 3, P, P] -> `probabilities` float32 [N, T].

        On the host the whole graph; on a GPU the graph up to `feature_map`, and the kernel
        `fused_heads` with the weights in `heads`: the classifier as the pack has it, whatever
        `onnx` was quantised to.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Device[Array]: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


AnyDevice = Device[Any]
"""A device for whoever does not touch its arrays."""


def _nothing() -> None:
    """Do nothing: no compiled network is kept."""


@dataclass(frozen=True, kw_only=True)
class DeviceChoice:
    """Hold an open device with the sizes that suit it.

    kind: its kind's record.
    place: the memory in which its lanes take frames as they lie, beside the host's.
    lanes: batches in flight. threads: CPU threads for each kernel of a lane.
    lane_frames: frames a lane takes at once.
    batch_frames, batch_patches: batch sizes of the networks.
    notes: why no faster device or precision was taken. doubts: what to know of its results.
    refuse: removes the compiled networks that are kept on the disk; called when they give wrong
        answers.
    """

    device: AnyDevice
    kind: DeviceKind
    place: Place = HOST
    lanes: int
    threads: int
    lane_frames: int
    batch_frames: int
    batch_patches: tuple[int, ...]
    notes: Sequence[str]
    doubts: Sequence[str] = ()
    refuse: Callable[[], None] = _nothing


class OpenDevice(Protocol):
    """Open a device, as DeviceKind.open does."""

    def __call__(
        self,
        number: int,
        *,
        precision: str,
        lanes: int | None,
        notes: Sequence[str],
        cache_name: str,
        watch: BuildWatch | None,
    ) -> DeviceChoice:
        """Open a device that has no problems.

        precision: one that it offers. lanes: None for what suits it.
        notes: come before the device's own.
        cache_name: a folder for the compiled networks of a pack. watch: see Engine.open.
        """
        ...


def _none_lacking(_: int) -> Sequence[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class DeviceKind:
    """Say of one kind of device what has to be known before one is open.

    name: what --device and calibration.json call it.
    numbered: --device may name some of several, e.g. 'cuda:1'.
    keeps_networks: compiling takes minutes, so networks are kept on the disk, and each device
        proves them on the pack's golden inputs when it is opened; else they are compiled at each
        start, in seconds, once for all lanes.
    decodes: images can be decoded into its memory.
    found: numbers of those that are here. The other functions take one of them.
    problems: everything that a device lacks to run, each with its remedy.
    precisions: what it computes in, fastest first.
    lacks: why not in one that others of its kind have, one line each.
    needs: what doctor says of the kind, one line for each thing that is here or missing.
    dlpack_type: of its memory, in DLPack's numbers.
    adopt: makes DevicePixels of a frame in that memory, without a copy.
    """

    name: str
    numbered: bool
    keeps_networks: bool
    decodes: bool
    found: Callable[[], Sequence[int]]
    problems: Callable[[int], Sequence[str]]
    precisions: Callable[[int], Sequence[str]]
    lacks: Callable[[int], Sequence[str]] = _none_lacking
    needs: Callable[[], Sequence[str]]
    open: OpenDevice
    dlpack_type: int | None = None
    adopt: Callable[[object], DevicePixels] | None = None
