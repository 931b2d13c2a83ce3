"""Give a node's inputs and attributes to the rule of its operator, and refuse what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rbc_engine.packs.graphs.onnx_file import Node

__all__ = ["MOST_STEP", "Given", "Shape", "Values"]

Shape = tuple[int, ...]
Values = tuple[float, ...]

MOST_STEP = 1 << 16
"""Of strides, dilations and padding."""


class Given:
    """Give a node's inputs and attributes to the function that knows its operator."""

    def __init__(
        self, node: Node, shapes: Mapping[str, Shape], values: Mapping[str, Values]
    ) -> None:
        self.node = node
        self._shapes = shapes
        self._values = values
        self.multiplications = 0

    def has(self, index: int) -> bool:
        return index < len(self.node.inputs) and self.node.inputs[index] != ""

    def shape(self, index: int, *, axes: int | None = None) -> Shape:
        if not self.has(index):
            raise ValueError(f"it has no input {index}")
        shape = self._shapes[self.node.inputs[index]]
        if axes is not None and len(shape) != axes:
            raise ValueError(f"its input {index} must have {axes} axes (got {list(shape)})")
        return shape

    def values(self, index: int) -> Values | None:
        """Return the numbers of an input if they follow from the file and the shapes alone."""
        return self._values.get(self.node.inputs[index]) if self.has(index) else None

    def known(self, index: int) -> list[int]:
        values = self.values(index)
        if values is None or any(value != int(value) for value in values if abs(value) < 2**53):
            raise ValueError(
                f"its input {index} must be a few whole numbers that do not depend on pixels"
            )
        return [int(value) for value in values]

    def number(self, name: str, default: int) -> int:
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int):
            raise ValueError(f"{name} must be a number (got {value!r:.40})")
        return value

    def text(self, name: str, default: str) -> str:
        value = self.node.attributes.get(name, default)
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text (got {value!r:.40})")
        return value

    def numbers(
        self, name: str, default: Sequence[int], *, least: int = 0, most: int = MOST_STEP
    ) -> list[int]:
        value = self.node.attributes.get(name, tuple(default))
        if not isinstance(value, tuple) or len(value) != len(default):
            raise ValueError(f"{name} must be {len(default)} numbers (got {value!r:.40})")
        found = [int(number) for number in value]
        if any(not least <= number <= most for number in found):
            raise ValueError(f"{name} must be within {least}..{most} (got {value!r:.40})")
        return found
