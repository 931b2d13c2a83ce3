"""Count the work in a network: its floating-point operations and the bytes that it must at least
move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import openvino as ov

__all__ = ["Work", "network_work"]

_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Hold a number of flops (a multiplication and an addition are two) and of bytes, read and
    written.
    """

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(flops=self.flops + other.flops, bytes=self.bytes + other.bytes)

    def times(self, factor: float) -> Work:
        return Work(flops=self.flops * factor, bytes=self.bytes * factor)


def network_work(
    onnx: bytes, shapes: Mapping[str, tuple[int, ...]], *, bytes_per_value: int
) -> Work:
    """Count the work from the shapes of the graph: convolutions and matrix products, which are
    nearly all of it.

    shapes: of every input. bytes_per_value: of the type in which the network computes, 4 for fp32.

    bytes: every product's input, weights and output once: none stays in a cache, and everything
    else is fused.
    """
    model = ov.Core().read_model(onnx)
    model.reshape({name: list(shape) for name, shape in shapes.items()})
    flops = moved = 0
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in _PRODUCTS:
            continue
        left, right = (tuple(node.input(i).get_shape()) for i in range(2))
        out = tuple(node.output(0).get_shape())
        if kind == "Convolution":  # weights [out, in, h, w]
            each = prod(right[1:])
        elif kind == "GroupConvolution":  # weights [groups, out, in, h, w]
            each = prod(right[2:])
        else:
            each = left[-2] if node.get_attributes()["transpose_a"] else left[-1]
        flops += 2 * prod(out) * each
        moved += bytes_per_value * (prod(left) + prod(right) + prod(out))
    return Work(flops=float(flops), bytes=float(moved))
