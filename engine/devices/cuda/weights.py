"""Read weights from an ONNX file with just enough of protobuf, so that the engine needs no onnx
package.

The file may come from an untrusted source: every length is checked against what is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import PackError

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
        for graph in _fields(memoryview(onnx), _GRAPH):
            for tensor in _fields(graph, _INITIALIZER):
                name = bytes(next(_fields(tensor, _NAME), b"")).decode()
                if name in names:
                    found[name] = _array(name, tensor)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
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
    for number, value in _walk(tensor):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
    kind = next((value for number, value in _walk(tensor) if number == _TYPE), None)
    raw = next(_fields(tensor, _RAW), memoryview(b""))
    dtype = _DTYPES.get(kind) if isinstance(kind, int) else None
    if dtype is None or math.prod(dims) * dtype.itemsize != len(raw):
        raise ValueError(
            f"{name} must be raw float16 or float32 as long as its shape {dims} says "
            f"(got type {kind}, {len(raw)} bytes)"
        )
    return np.frombuffer(raw, dtype).reshape(dims)


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the values of one field that have a length: strings, bytes, messages."""
    for number, value in _walk(message):
        if number == wanted and not isinstance(value, int):
            yield value


def _packed(values: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(values):
        number, at = _varint(values, at)
        numbers.append(number)
    return numbers


def _walk(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of every field: an int for a varint, else its bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field of unknown kind {kind} at byte {at}")
        if size > len(message) - at:
            raise ValueError(f"a field of {size} bytes where {len(message) - at} are left")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number of more than 10 bytes at byte {at}")
