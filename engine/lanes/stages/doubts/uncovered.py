"""Measure how much of what stands out from a frame's background no box covers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.lanes.measure import FieldMeasure
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["uncovered_share"]

_SHORT_SIDE_PX = 240
# As a share of a cell's density: where C++ sets the threshold of measure_field, too.
_DENSE = 0.5
# A density, over all channels, that no cell has: the black around a round view.
_BLACK = 0.8
_LEAST_DENSITY = 0.01
# With less foreground than this in the area of cells, a single speck would decide.
_LEAST_CELLS = 2.0
# Cells are round: a box of a cell is grown by this share of its side for soft edges.
_GROWN = 0.05

Mask = npt.NDArray[np.bool_]


def uncovered_share(pixels: UInt8, measure: FieldMeasure, boxes: Float32) -> float | None:
    """Return the share of a frame's foreground that no box covers, 0..1; None with almost no
    foreground.

    pixels: uint8 [H, W, 3], RGB. measure: of this frame. boxes: float32 [N, 4], x0 y0 x1 y1 in px.
    """
    x0, y0, x1, y1 = measure.lit_box
    step = max(1, min(x1 - x0, y1 - y0) // _SHORT_SIDE_PX)
    foreground = _foreground(pixels[y0:y1:step, x0:x1:step], measure)
    count = int(foreground.sum())
    cell_px = (measure.cell_px or 0.0) / step
    if count < max(_LEAST_CELLS * cell_px**2 * np.pi / 4, 1.0):
        return None
    sides = boxes[:, 2:] - boxes[:, :2]
    grown = np.concatenate([boxes[:, :2] - _GROWN * sides, boxes[:, 2:] + _GROWN * sides], axis=1)
    place = (grown - np.array([x0, y0, x0, y0], np.float32)) / step
    low = np.maximum(np.floor(place[:, :2]), 0).astype(np.int64)
    high = np.maximum(np.ceil(place[:, 2:]) + 1, 0).astype(np.int64)
    for (left, top), (right, bottom) in zip(low.tolist(), high.tolist(), strict=True):
        foreground[top:bottom, left:right] = False
    return float(foreground.sum()) / count


def _foreground(pixels: UInt8, measure: FieldMeasure) -> Mask:
    """Return what is at least half as dense as a cell, bool [h, w], without specks."""
    cell = np.array(measure.density)
    sign = -1.0 if cell.sum() < 0 else 1.0
    strongest = max(float((sign * cell).max()), _LEAST_DENSITY)
    # Densities of all levels, looked up.
    levels = np.maximum(np.arange(256, dtype=np.float32), 1.0)
    tables = [
        (sign * np.log10(max(level, 1.0) / levels)).astype(np.float32)
        for level in measure.background
    ]
    dense = [table[pixels[..., channel]] for channel, table in enumerate(tables)]
    found = np.maximum(np.maximum(dense[0], dense[1]), dense[2]) > _DENSE * strongest
    if measure.surround:
        found &= np.minimum(np.minimum(dense[0], dense[1]), dense[2]) < _BLACK
    return _opened(found)


def _opened(mask: Mask) -> Mask:
    """Drop what is narrower than three px, along either axis."""
    small = _spread(mask, np.logical_and)
    return _spread(small, np.logical_or)


def _spread(mask: Mask, join: np.ufunc) -> Mask:
    """Join each pixel with its neighbours along both axes; outside there is what the edge has."""
    padded = np.pad(mask, 1, mode="edge")
    along = join(join(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    joined: Mask = join(join(along[:-2], along[1:-1]), along[2:])
    return joined
