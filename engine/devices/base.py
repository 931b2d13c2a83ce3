"""What a device offers to the stages, and no more: memory, networks, and ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy.typing as npt

__all__ = ["Device", "DeviceArray", "Network"]

DeviceArray = Any
"""An array in the memory of a device: numpy on the host."""


class Network(Protocol):
    """A compiled network. One object serves one lane at a time; `Device.load` gives each lane its own."""

    def __call__(self, inputs: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
        """Runs it. Outputs are valid until the next call of this object."""
        ...


class Device(Protocol):
    """A CPU or a GPU."""

    name: str
    """What doctor and run.json call it, e.g. 'cpu: AMD EPYC'."""
    backend: str
    """Library and version that runs the networks, e.g. 'OpenVINO 2026.4'."""
    precision: str
    """'fp32', 'bf16', 'fp16', 'int8' or 'fp8': what the networks compute in."""
    ops: Any
    """The functions of rbc_engine.ops for this device's arrays: same names, same arguments."""

    def upload(self, array: npt.NDArray[Any]) -> DeviceArray: ...

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> DeviceArray: ...

    def download(self, array: DeviceArray) -> npt.NDArray[Any]: ...

    def load(
        self, onnx: bytes, *, outputs: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
    ) -> Network:
        """Compiles an ONNX graph for fixed input shapes, keeping only the named outputs.

        Inputs and outputs are float32 or uint8 on the host whatever types the graph has. The same graph,
        outputs and shapes are compiled once; each call gives an object that may run beside the others.
        Raises DeviceError if the graph does not compile.
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
