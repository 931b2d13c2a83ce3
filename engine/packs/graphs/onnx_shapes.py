"""Follow the shapes of a network's tensors from its inputs to its outputs, and count what they would
take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rbc_engine.packs.graphs.onnx_file import Graph
from rbc_engine.packs.graphs.onnx_given import Given, Shape, Values
from rbc_engine.packs.graphs.onnx_operators import output_of

__all__ = ["Work", "follow_shapes"]

_MOST_VALUES = 64
_ITEM_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Work:
    """Hold what a network takes for inputs of given shapes.

    shapes: of its outputs, by name. bytes: of all its tensors, were they kept in float32.
    multiplications: of its convolutions and matrix products.
    """

    shapes: dict[str, Shape]
    bytes: int
    multiplications: int


def follow_shapes(graph: Graph, inputs: Mapping[str, Shape]) -> Work:
    """Return the shapes of a graph's outputs, and what it takes.

    inputs: the shape of each of its inputs.

    Raises ValueError for an operator that packs do not have, and for shapes that do not fit.
    """
    if graph.inputs.keys() != inputs.keys():
        raise ValueError(f"its inputs must be {sorted(inputs)} (got {sorted(graph.inputs)!r:.80})")
    shapes: dict[str, Shape] = dict(inputs)
    values: dict[str, Values] = {}
    for name, tensor in graph.tensors.items():
        _take(shapes, values, name, tensor.shape, tensor.values)
    total = sum(math.prod(shape) for shape in shapes.values())
    multiplications = 0
    for node in graph.nodes:
        given = Given(node, shapes, values)
        try:
            shape, known = output_of(given)
        except ValueError as error:
            raise ValueError(
                f"operator {node.kind!r:.40} of {node.outputs[0]!r:.80}: {error}"
            ) from error
        _take(shapes, values, node.outputs[0], shape, known)
        total += math.prod(shape)
        multiplications += given.multiplications
    return Work(
        shapes={name: shapes[name] for name in graph.outputs},
        bytes=total * _ITEM_BYTES,
        multiplications=multiplications,
    )


def _take(
    shapes: dict[str, Shape],
    values: dict[str, Values],
    name: str,
    shape: Shape,
    known: Values | None,
) -> None:
    shapes[name] = shape
    if known is not None and len(known) <= _MOST_VALUES:
        values[name] = known
