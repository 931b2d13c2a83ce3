"""Find the part of a frame that is lit: the round view of an eyepiece, with a black or white
surround.

What lies outside is no smear: it is cut off, and filled with the background's colour where the lit
part is round, so that the detector sees an edge as that of any field. Regions that touch the rim
may be cut by it, as at the border of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rbc_engine.lanes.measure import measure_field
from rbc_engine.types.arrays import Float32, UInt8
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["LitPart", "lit_part"]

_SAMPLES = 64
"""Of each edge of a frame, by which it is told whether there may be a surround."""
_DARK, _WHITE = 45, 250
_EDGE_SHARE = 0.08
"""Of the edge, that is dark or white where there is a surround: a few dark cells are less."""
_SHRUNK_PX = 512
_BOX_SHARE = 0.025
_BLEND_PX = 2
"""Of the shrunk mask: the rim itself is a mixture of both, and would be seen as a line."""
_INSET, _NEAR = 0.15, 0.06
"""Of a box's sides: what its corners have beyond the cell, and how near the rim touches it."""
_RIM_PX = 2.0
"""Of the shrunk mask: what comes so near the rim touches it."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class LitPart:
    """Hold the lit part of a frame.

    box: x0 y0 x1 y1. pixels: uint8 of that box, what is not lit filled with the background. lit:
    bool, of the box shrunk by `step`, which parts are lit.
    """

    box: tuple[int, int, int, int]
    pixels: UInt8
    lit: Bools
    step: int

    def in_frame(self, regions: Regions) -> Regions:
        """Return regions found in `pixels` as those of the frame: without those outside the lit
        part, and with the flag `border` on those that touch its rim.
        """
        boxes = regions.boxes
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        y, x = (
            np.clip(centres[:, axis] / self.step, 0, length - 1).astype(np.intp)
            for axis, length in zip((1, 0), self.lit.shape, strict=True)
        )
        inside = self.lit[y, x]
        kept = regions.take(inside)
        flags = kept.flags.copy()
        flags[self._touches(kept.boxes)] |= np.uint8(RegionFlag.BORDER)
        return replace(kept, flags=flags).shifted(self.box[0], self.box[1])

    def _touches(self, boxes: Float32) -> Bools:
        """Bool [R]: of boxes that come near what is not lit. A box's corners do not count: cells
        are round.
        """
        sides = boxes[:, 2:] - boxes[:, :2]
        # Beyond the box nothing is lit.
        around = int(_RIM_PX + _NEAR * max(sides.max(initial=0), 1) / self.step) + 2
        dark = np.pad(~self.lit, around, constant_values=True)
        high, wide = dark.shape
        unlit = np.zeros((high + 1, wide + 1), np.int64)
        unlit[1:, 1:] = dark.cumsum(axis=0).cumsum(axis=1)
        touching = np.zeros(len(boxes), np.bool_)
        inset = _INSET * sides
        low_far = boxes[:, :2] - _NEAR * sides, boxes[:, 2:] + _NEAR * sides
        for axis in (0, 1):  # the box made narrower, then lower: a cross, about an ellipse
            low, far = (corner.copy() for corner in low_far)
            low[:, axis] += inset[:, axis]
            far[:, axis] -= inset[:, axis]
            first = np.floor(low / self.step - _RIM_PX).astype(np.intp) + around
            last = np.ceil(far / self.step + _RIM_PX).astype(np.intp) + around
            x0, x1 = first[:, 0].clip(0, wide), last[:, 0].clip(0, wide)
            y0, y1 = first[:, 1].clip(0, high), last[:, 1].clip(0, high)
            touching |= unlit[y1, x1] - unlit[y0, x1] - unlit[y1, x0] + unlit[y0, x0] > 0
        return touching


def lit_part(pixels: UInt8) -> LitPart | None:
    """Return the lit part of a frame; None if all of it is lit, or none is found.

    pixels: uint8 [H, W, 3].
    """
    edge = _edge(pixels)
    dark = float((edge.max(axis=1) < _DARK).mean())
    white = float((edge.min(axis=1) >= _WHITE).mean())
    if max(dark, white) < _EDGE_SHARE:
        return None
    found = measure_field(pixels)
    x0, y0, x1, y1 = found.lit_box
    if not found.surround or x1 - x0 < 8 or y1 - y0 < 8:
        return None
    # It was measured on a shrunk frame; the mask below is finer.
    more = int(_BOX_SHARE * max(x1 - x0, y1 - y0)) + 1
    x0, y0 = max(x0 - more, 0), max(y0 - more, 0)
    x1, y1 = min(x1 + more, pixels.shape[1]), min(y1 + more, pixels.shape[0])
    background = np.rint(found.background).astype(np.uint8)
    level = float(np.mean(found.background))
    cut = pixels[y0:y1, x0:x1]
    step = max(1, max(cut.shape[:2]) // _SHRUNK_PX)
    shrunk = cut[::step, ::step].mean(axis=2)
    is_lit = shrunk > level / 2 if dark >= white else shrunk < (level + 2 * 255) / 3
    lit = _eroded(_without_surround(is_lit), _BLEND_PX)
    outside = ~np.kron(lit, np.ones((step, step), np.bool_))[: cut.shape[0], : cut.shape[1]]
    filled = cut.copy()
    filled[outside] = background
    return LitPart(box=(x0, y0, x1, y1), pixels=filled, lit=lit, step=step)


def _edge(pixels: UInt8) -> UInt8:
    """uint8 [N, 3], of the frame's edge, a little way in."""
    height, width = pixels.shape[:2]
    y = np.linspace(1, height - 2, min(_SAMPLES, height)).astype(np.intp)
    x = np.linspace(1, width - 2, min(_SAMPLES, width)).astype(np.intp)
    return np.concatenate([pixels[1, x], pixels[height - 2, x], pixels[y, 1], pixels[y, width - 2]])


def _without_surround(is_lit: Bools) -> Bools:
    """What lies between the first and the last lit pixel of its row, and of its column: the lit
    part with everything dark in it.
    """
    rows = (
        np.maximum.accumulate(is_lit, axis=1)
        & np.maximum.accumulate(is_lit[:, ::-1], axis=1)[:, ::-1]
    )
    columns = (
        np.maximum.accumulate(is_lit, axis=0) & np.maximum.accumulate(is_lit[::-1], axis=0)[::-1]
    )
    return np.asarray(rows & columns)


def _eroded(mask: Bools, by: int) -> Bools:
    padded = np.pad(mask, by)
    high, wide = mask.shape
    kept: Bools = mask.copy()
    for down, right in ((0, by), (2 * by, by), (by, 0), (by, 2 * by)):
        kept &= padded[down : down + high, right : right + wide]
    return kept
