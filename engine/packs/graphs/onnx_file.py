"""Read the graph of an ONNX file, and refuse what no network of a pack needs.

The file may come from an untrusted source. Loops, branches, functions, operators from elsewhere,
sparse tensors and tensors in other files have no place in a pack, and so are refused, as is any
field that this program does not know.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from rbc_engine.packs.graphs.protobuf import fields, packed, signed

__all__ = ["Attribute", "Graph", "Node", "Tensor", "read_graph"]

_OPSETS = range(13, 26)
_IR_VERSIONS = range(4, 14)
_MOST_NODES = 2000
_MOST_TENSORS = 4000
_MOST_PORTS = 64
_MOST_NAME = 400
_MOST_NUMBERS = 64
_MOST_AXES = 6
_MOST_SIDE = 1 << 31
# By ONNX's numbers of element types.
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 17: 1}
_BYTE_KINDS = (2, 3, 9, 17)
_NUMBERS = {1: "<f4", 3: "<i1", 6: "<i4", 7: "<i8", 10: "<f2"}
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS = 1, 2, 3, 4, 6, 7


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Describe an initialiser. kind: ONNX's number of its element type. values: if they are few."""

    shape: tuple[int, ...]
    kind: int
    values: tuple[float, ...] | None


Attribute = Union[int, float, str, tuple[int, ...], tuple[float, ...], Tensor]


@dataclass(frozen=True, kw_only=True)
class Node:
    """Describe a node. inputs: '' for an optional one that is not given."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Hold the graph. nodes: each after those whose outputs it reads. inputs: name and number of the
    element type.
    """

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)


def read_graph(data: bytes) -> Graph:
    """Read an ONNX file. Raises ValueError if it is damaged, or is anything but a plain graph."""
    model = _message(
        memoryview(data),
        "the model",
        once={1: _int, 2: _skip, 3: _skip, 4: _skip, 5: _int, 6: _skip, 7: _bytes},
        many={8: _opset, 14: _skip},
    )
    if model.get(1) not in _IR_VERSIONS:
        raise ValueError(f"it is not ONNX of IR version 4 to 13 (got {model.get(1)})")
    opsets = model[8]
    if len(opsets) != 1 or opsets[0][0] or opsets[0][1] not in _OPSETS:
        raise ValueError(
            f"it must use ONNX's own operators, opset 13 to 25, and no others (got {opsets!r:.80})"
        )
    if 7 not in model:
        raise ValueError("it has no graph")
    parts = _message(
        model[7],
        "the graph",
        once={2: _skip, 10: _skip},
        many={1: _node, 5: _tensor, 11: _port, 12: _port, 16: _skip},
    )
    if len(parts[1]) > _MOST_NODES or len(parts[5]) > _MOST_TENSORS:
        raise ValueError(
            f"it has {len(parts[1])} nodes and {len(parts[5])} tensors; at most {_MOST_NODES} and "
            f"{_MOST_TENSORS} can be"
        )
    graph = Graph(
        nodes=parts[1],
        tensors=dict(parts[5]),
        inputs=dict(parts[11]),
        outputs=[name for name, _ in parts[12]],
    )
    _check_names(graph, tensors=len(parts[5]), inputs=len(parts[11]))
    return graph


def _check_names(graph: Graph, *, tensors: int, inputs: int) -> None:
    """Check that every name stands for one thing, and that nothing is read before it is there."""
    known = {*graph.tensors, *graph.inputs}
    if len(known) != tensors + inputs or "" in known:
        raise ValueError("its inputs and tensors must have names of their own")
    for node in graph.nodes:
        unknown = [name for name in node.inputs if name and name not in known]
        if unknown:
            raise ValueError(f"a node reads {unknown[0]!r}, which no node before it makes")
        for name in node.outputs:
            if not name or name in known:
                raise ValueError(f"two things are called {name!r}")
            known.add(name)
    if len(set(graph.outputs)) != len(graph.outputs) or not known.issuperset(graph.outputs):
        raise ValueError("its outputs must be made by its nodes, each once")


Read = Callable[[Any], Any]


def _message(
    message: memoryview, what: str, *, once: dict[int, Read], many: dict[int, Read]
) -> dict[int, Any]:
    """Read a message of known fields, of which those in `many` give lists."""
    found: dict[int, Any] = {number: [] for number in many}
    for number, value in fields(message):
        if number in many:
            if len(found[number]) > _MOST_TENSORS:
                raise ValueError(f"{what} has more than {_MOST_TENSORS} entries of one kind")
            found[number].append(many[number](value))
        elif number in once and number not in found:
            found[number] = once[number](value)
        else:
            raise ValueError(f"{what} has a field {number} that no network of a pack needs")
    return found


def _int(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("a number is not one")
    return signed(value)


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes must be")
    return value


def _text(value: int | memoryview) -> str:
    text = _bytes(value)
    if len(text) > _MOST_NAME:
        raise ValueError(f"a name of {len(text)} bytes, more than {_MOST_NAME}")
    return bytes(text).decode()


def _float(value: int | memoryview) -> float:
    data = _bytes(value)
    if len(data) != 4:
        raise ValueError(f"a float of {len(data)} bytes")
    return float(struct.unpack("<f", data)[0])


def _skip(value: int | memoryview) -> None:
    """Leave what is for people: names, notes, versions."""


def _opset(value: int | memoryview) -> tuple[str, int]:
    found = _message(_bytes(value), "an opset", once={1: _text, 2: _int}, many={})
    return found.get(1, ""), found.get(2, 0)


def _port(value: int | memoryview) -> tuple[str, int]:
    """Read name and element type of a graph's input or output; its shape is not believed."""
    found = _message(_bytes(value), "a port", once={1: _text, 2: _bytes, 3: _skip}, many={4: _skip})
    kind = _message(found.get(2, memoryview(b"")), "a type", once={1: _bytes, 6: _skip}, many={})
    tensor = _message(
        kind.get(1, memoryview(b"")), "a tensor's type", once={1: _int, 2: _skip}, many={}
    )
    return found.get(1, ""), tensor.get(1, 0)


def _numbers(values: list[Any], read: Read) -> list[Any]:
    """Read a repeated number, packed or not."""
    numbers: list[Any] = []
    for value in values:
        if isinstance(value, int) or (read is _float and len(value) == 4):
            numbers.append(read(value))
        elif read is _float:
            if len(value) % 4:
                raise ValueError("floats that are cut off")
            numbers += struct.unpack(f"<{len(value) // 4}f", value)
        else:
            numbers += [signed(number) for number in packed(value)]
        if len(numbers) > _MOST_NUMBERS:
            raise ValueError(f"an attribute of more than {_MOST_NUMBERS} numbers")
    return numbers


def _same(value: int | memoryview) -> int | memoryview:
    return value


def _count(value: int | memoryview) -> int:
    """Return how many varints a repeated field holds."""
    if isinstance(value, int):
        return 1
    return int((np.frombuffer(value, np.uint8) < 0x80).sum())


def _tensor(value: int | memoryview) -> tuple[str, Tensor]:
    found = _message(
        _bytes(value),
        "a tensor",
        once={2: _int, 8: _text, 9: _bytes, 12: _skip, 14: _int},
        many={1: _same, 5: _same, 13: _same, 16: _skip},
    )
    name, kind = found.get(8, ""), found.get(2, 0)
    if found[13] or found.get(14, 0) != 0:
        raise ValueError(
            f"{name} is stored in other files, which a pack must not have; save the model as one "
            "file"
        )
    shape = tuple(_numbers(found[1], _int))
    if kind not in _ITEM_BYTES:
        raise ValueError(f"{name} has an element type {kind}, which no network of a pack needs")
    if len(shape) > _MOST_AXES or any(not 0 <= side < _MOST_SIDE for side in shape):
        raise ValueError(f"{name} has a shape {list(shape)!r:.80}")
    raw = found.get(9, memoryview(b""))
    count = math.prod(shape)
    # Tensors of 8 bits may be stored as a varint each, which are counted but not needed.
    listed = sum(map(_count, found[5])) if kind in _BYTE_KINDS else 0
    if (listed, len(raw)) not in ((count, 0), (0, count * _ITEM_BYTES[kind])):
        raise ValueError(f"{name} of shape {list(shape)} is not as long as it says")
    values = None
    if count <= _MOST_NUMBERS and kind in _NUMBERS and not listed:
        values = tuple(np.frombuffer(raw, _NUMBERS[kind]).tolist())
    return name, Tensor(shape=shape, kind=kind, values=values)


def _node(value: int | memoryview) -> Node:
    found = _message(
        _bytes(value),
        "a node",
        once={3: _text, 4: _text, 6: _skip, 7: _text, 8: _text},
        many={1: _text, 2: _text, 5: _attribute, 9: _skip},
    )
    kind = found.get(4, "")
    if found.get(7) or found.get(8):
        raise ValueError(f"operator {kind!r} is of {found.get(7)!r}, not of ONNX itself")
    if len(found[1]) > _MOST_PORTS or len(found[2]) != 1:
        raise ValueError(
            f"operator {kind!r} must have at most {_MOST_PORTS} inputs, and one output"
        )
    attributes = dict(found[5])
    if len(attributes) != len(found[5]):
        raise ValueError(f"operator {kind!r} has an attribute twice")
    return Node(kind=kind, inputs=tuple(found[1]), outputs=tuple(found[2]), attributes=attributes)


def _attribute(value: int | memoryview) -> tuple[str, Attribute]:
    found = _message(
        _bytes(value),
        "an attribute",
        once={1: _text, 2: _float, 3: _int, 4: _text, 5: _tensor, 13: _skip, 20: _int},
        many={7: _same, 8: _same},
    )
    name, kind = found.get(1, ""), found.get(20, 0)
    if kind == _TENSOR and 5 in found:
        return name, found[5][1]
    read: dict[int, tuple[int, Any]] = {_FLOAT: (2, 0.0), _INT: (3, 0), _STRING: (4, "")}
    if kind in read:
        return name, found.get(*read[kind])
    if kind == _FLOATS:
        return name, tuple(_numbers(found[7], _float))
    if kind == _INTS:
        return name, tuple(_numbers(found[8], _int))
    raise ValueError(f"attribute {name!r} has a type {kind} that no network of a pack needs")
