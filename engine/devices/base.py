"""What a device offers to the stages, and no more: memory, networks, and ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy.typing as npt

from rbc_engine.meter import Meter

__all__ = ["BuildWatch", "Device", "DeviceArray", "Network"]

DeviceArray = Any
"""An array in the memory of a device: numpy on the host, CudaArray on a GPU. Both have shape, dtype and a length, are
cut along their first axis by slices, and take an array or 0 into such a slice."""


class BuildWatch(Protocol):
    """Whoever waits for networks to be compiled. Called from any thread."""

    def line(self, text: str) -> None:
        """What is compiled, and why: one line."""
        ...

    def progress(self, phase: str, done: int, total: int) -> bool:
        """`done` of `total` steps of a phase are done. False stops the compilation."""
        ...


class Network(Protocol):
    """A compiled network. One object serves one lane at a time; `Device.load` gives each lane its own."""

    def __call__(self, inputs: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """Runs it. Outputs are valid until the next call of this object."""
        ...


class Device(Protocol):
    """A CPU or a GPU, as one lane sees it: its work is done in the order it was asked for.

    Used by one thread at a time; each calls `enter` before anything else.
    """

    name: str
    """What doctor and run.json call it, e.g. 'cpu: AMD EPYC'."""
    backend: str
    """Library and version that runs the networks, e.g. 'OpenVINO 2026.4'."""
    precision: str
    """'fp32', 'bf16', 'fp16', 'int8' or 'fp8': what the networks compute in."""
    ops: Any
    """The functions of rbc_engine.devices.cpu.ops for this device's arrays: same names, same arguments."""

    def enter(self) -> None:
        """Makes the device the current one of the calling thread."""
        ...

    def lane(self) -> Device:
        """The same device for another lane, whose work is in no order with this one's."""
        ...

    def free_bytes(self) -> int | None:
        """Memory that is free; None where nobody needs to know, on the host."""
        ...

    def upload(self, array: npt.NDArray[Any] | DeviceArray) -> DeviceArray:
        """The array on this device; itself if it is there already. It may be changed after the next `download`."""
        ...

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> DeviceArray:
        """Memory with any content."""
        ...

    def download(self, *arrays: DeviceArray) -> tuple[npt.NDArray[Any], ...]:
        """Waits for everything asked for so far; then the arrays on the host."""
        ...

    def load(
        self,
        onnx: bytes,
        *,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        meter: Meter | None = None,
    ) -> Network:
        """Compiles an ONNX graph for fixed input shapes, keeping only the named outputs.

        Inputs and outputs are float32 or uint8 on the host whatever types the graph has, and of the graph's
        types on a GPU. The same graph, outputs and shapes are compiled once; each call gives an object that may
        run beside those of other lanes. meter: is told when the network runs.
        Raises DeviceError if the graph does not compile.
        """
        ...

    def load_classifier(
        self,
        onnx: bytes,
        *,
        heads: bytes,
        shape: tuple[int, int, int, int],
        meter: Meter | None = None,
    ) -> Network:
        """The classifier of a pack, `patches` [N, 3, P, P] -> `probabilities` float32 [N, T].

        On the host the whole graph; on a GPU the graph up to `feature_map`, and the kernel `fused_heads` with the
        weights in `heads`: the classifier as the pack has it, whatever `onnx` was quantised to.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Device: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
