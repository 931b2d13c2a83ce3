"""Find light, stain and round components of a field of any colour from its optical density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rbc_engine.training.datasets.foreground import components, fill_holes, otsu_threshold
from rbc_engine.training.datasets.laboratories.base import Stain, root_areas
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["StainedField", "stained_field"]

Mask = npt.NDArray[np.bool_]

_DARKEST_BACKGROUND = 8.0
_DENSEST = 3.0
_FAINTEST = 0.01
# As shares of the short side: the window over which a pixel's density is averaged, and the mask's
# opening.
_SMOOTHED, _OPENED = 240, 200
# A nucleus is so dense that Otsu's threshold separates it from everything else: then the one below
# it separates cells.
_LITTLE_FOREGROUND = 0.12
_NUCLEI = 2.5
_PALE_SHARE = 0.1
# Of a round component: its area over that of the ellipse in its box, its long side over its short
# one, its density over the median, its short side over the field's.
_FULL = (0.88, 1.12)
_LONGEST = 1.5
_DENSEST_CELL = 1.8
_SMALLEST = 1 / 60
# Fewer round components say little about the size of a cell.
_ENOUGH = 3
_USUAL_DENSITY = (0.1, 0.3, 0.2)


@dataclass(frozen=True, eq=False, kw_only=True)
class StainedField:
    """Hold what stands out from the background of a field.

    labels: int32 [H, W], component i has label i + 1, 0 is background.
    boxes: float32 [R, 4], x0 y0 x1 y1 in pixels, the far edges exclusive.
    areas: int64 [R], in pixels.
    round: bool [R], those that look like one red cell clear of the border.
    """

    labels: npt.NDArray[np.int32]
    boxes: Float32
    areas: npt.NDArray[np.int64]
    round: Mask
    stain: Stain

    @property
    def cell_px(self) -> float | None:
        """Return the root of the median box area of the round components, pixels; None if there are
        too few.
        """
        if self.round.sum() < _ENOUGH:
            return None
        return float(np.median(root_areas(self.boxes[self.round])))


def stained_field(pixels: UInt8) -> StainedField:
    """Separate a field, uint8 [H, W, 3] RGB, into components and background."""
    background = _background(pixels)
    density = _optical_density(pixels, background)
    strongest = np.abs(density).max(axis=2)
    mask = _foreground(np.minimum(strongest, _DENSEST))
    labels, boxes, areas = components(mask)
    single = _round_components(labels, boxes, areas, strongest)
    cells = np.isin(labels, 1 + np.flatnonzero(single)) if single.any() else mask
    level = np.abs(density[cells]).mean(axis=0) if cells.any() else np.array(_USUAL_DENSITY)
    return StainedField(
        labels=labels,
        boxes=boxes,
        areas=areas,
        round=single,
        stain=Stain(background=background, density=np.maximum(level, _FAINTEST).astype(np.float32)),
    )


def _background(pixels: UInt8) -> Float32:
    """Return the median of the bright side of the green channel, float32 [3]."""
    green = pixels[..., 1]
    bright = green > otsu_threshold(green.reshape(-1).astype(np.float32))
    level = np.median(pixels[bright] if bright.any() else pixels.reshape(-1, 3), axis=0)
    return np.asarray(np.maximum(level, _DARKEST_BACKGROUND), np.float32)


def _optical_density(pixels: UInt8, background: Float32) -> Float32:
    """Return float32 [H, W, 3], natural logarithm of background over level, averaged with
    neighbouring pixels.
    """
    side = max(1, round(min(pixels.shape[:2]) / _SMOOTHED))
    levels = ndimage.uniform_filter(pixels.astype(np.float32), (side, side, 1))
    return np.asarray(-np.log(np.maximum(levels, 1.0) / background), np.float32)


def _foreground(strongest: Float32) -> Mask:
    if not np.ptp(strongest) > 0:
        return np.zeros(strongest.shape, bool)
    threshold = otsu_threshold(strongest.reshape(-1))
    dense = strongest > threshold
    below = strongest[~dense]
    if dense.any() and len(below) and np.ptp(below) > 0:
        second = otsu_threshold(below)
        pale = (strongest > second) & ~dense
        nuclei = (
            pale.mean() > _PALE_SHARE and strongest[dense].mean() > _NUCLEI * strongest[pale].mean()
        )
        if dense.mean() < _LITTLE_FOREGROUND or nuclei:
            threshold = second
    side = max(1, round(min(strongest.shape) / _OPENED))
    cross = ndimage.generate_binary_structure(2, 1)
    return np.asarray(ndimage.binary_opening(fill_holes(strongest > threshold), cross, side))


def _round_components(
    labels: npt.NDArray[np.int32],
    boxes: Float32,
    areas: npt.NDArray[np.int64],
    strongest: Float32,
) -> Mask:
    if not len(boxes):
        return np.zeros(0, bool)
    height, width = labels.shape
    density = ndimage.mean(strongest, labels, np.arange(1, len(boxes) + 1))
    sides = boxes[:, 2:] - boxes[:, :2]
    clear = (boxes[:, :2] > 1).all(axis=1) & (boxes[:, 2:] < np.array([width, height]) - 1).all(
        axis=1
    )
    filled = areas / (np.pi / 4 * sides.prod(axis=1))
    found = (
        clear
        & (sides.min(axis=1) > min(height, width) * _SMALLEST)
        & (filled > _FULL[0])
        & (filled < _FULL[1])
        & (sides.max(axis=1) < _LONGEST * sides.min(axis=1))
    )
    if found.any():
        found &= density < _DENSEST_CELL * np.median(density[found])
    return np.asarray(found)
