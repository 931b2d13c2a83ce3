"""Read weights from an ONNX file.

The file may come from an untrusted source: every length is checked against what is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import PackError
from rbc_engine.packs.graphs.protobuf import fields, packed

__all__ = ["read_weights"]

_GRAPH, _INITIALIZER = 7, 5  # ModelProto.graph, GraphProto.initializer
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9  # TensorProto
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}


def read_weights(onnx: bytes, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Read the named initializers, float16 or float32.

    Raises PackError if one is missing, of another type, or not as long as its shape says.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    try:
        for graph in _with_length(memoryview(onnx), _GRAPH):
            for tensor in _with_length(graph, _INITIALIZER):
                name = bytes(next(_with_length(tensor, _NAME), b"")).decode()
                if name in names:
                    found[name] = _array(name, tensor)
    except ValueError as error:
        raise PackError(f"the ONNX file is damaged: {error}; reinstall the pack") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise PackError(
            f"the ONNX file has no weights {', '.join(missing)}, which this program's export "
            f"writes; export the pack again"
        )
    return found


def _array(name: str, tensor: memoryview) -> npt.NDArray[Any]:
    dims: list[int] = []
    for number, value in fields(tensor):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else packed(value)
    kind = next((value for number, value in fields(tensor) if number == _TYPE), None)
    raw = next(_with_length(tensor, _RAW), memoryview(b""))
    dtype = _DTYPES.get(kind) if isinstance(kind, int) else None
    if dtype is None or math.prod(dims) * dtype.itemsize != len(raw):
        raise ValueError(
            f"{name} must be raw float16 or float32 as long as its shape {dims} says "
            f"(got type {kind}, {len(raw)} bytes)"
        )
    return np.frombuffer(raw, dtype).reshape(dims)


def _with_length(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the values of one field that have a length: strings, bytes, messages."""
    for number, value in fields(message):
        if number == wanted and not isinstance(value, int):
            yield value
