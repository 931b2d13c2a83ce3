"""A field of some laboratory, with the single cells in it and what is known of its stain and scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["KINDS", "PLATELET", "RED", "WHITE_CELL", "CellField", "Stain", "overlap", "root_areas"]

KINDS = ("red", "white_cell", "platelet", "artefact")
"""What a pack tells apart; the kind of a cell is an index into these."""

RED, WHITE_CELL, PLATELET = 0, 1, 2

_BORDER_PX = 2.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Stain:
    """How a field is lit and stained.

    background: float32 [3], the level of the background, 1..255, red, green, blue.
    density: float32 [3], over 0: the mean optical density of its red cells, in natural logarithms.
    """

    background: Float32
    density: Float32


@dataclass(frozen=True, eq=False, kw_only=True)
class CellField:
    """One image of a laboratory.

    laboratory: the name of its dataset in the collection.
    group: fields of one group never stand on both sides of a split.
    pixels: uint8 [H, W, 3], RGB.
    boxes: float32 [N, 4], x0 y0 x1 y1 in pixels, of single cells, also where these touch.
    kinds: uint8 [N], indices into KINDS.
    unknown: float32 [U, 4], boxes of what is neither a known cell nor background: cells that the border cuts and
        nobody labelled, clumps of which the single cells are not known.
    cell_px: root of the box area of the field's median red cell, in pixels.
    labels: the field's regions and their types, where it has any.
    """

    laboratory: str
    path: Path
    group: str
    pixels: UInt8
    boxes: Float32
    kinds: UInt8
    unknown: Float32
    cell_px: float
    stain: Stain
    labels: LabelledField | None = None

    def clear(self) -> npt.NDArray[np.bool_]:
        """bool [N], whether each cell lies clear of the field's border."""
        height, width = self.pixels.shape[:2]
        low = (self.boxes[:, :2] > _BORDER_PX).all(axis=1)
        high = (self.boxes[:, 2:] < np.array([width, height]) - _BORDER_PX).all(axis=1)
        return np.asarray(low & high)

    def lone(self, most: float = 0.03) -> npt.NDArray[np.bool_]:
        """bool [N], whether each cell's box overlaps no other by an IoU over `most`."""
        shared = overlap(self.boxes, self.boxes)
        np.fill_diagonal(shared, 0.0)
        return np.asarray(shared.max(axis=1, initial=0.0) <= most)

    def __repr__(self) -> str:
        return f"CellField({self.laboratory}, {self.path.name!r}, {len(self.boxes)} cells)"


def overlap(first: Float32, second: Float32) -> Float32:
    """Intersection over union of each two boxes: float32 [N, M] of float32 [N, 4] and [M, 4]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, 1e-6), np.float32)


def root_areas(boxes: Float32) -> Float32:
    """float32 [N]: the side of the square with each box's area; boxes float32 [N, 4]."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return np.asarray(np.sqrt(sides.prod(axis=1)), np.float32)
