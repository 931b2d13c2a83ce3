"""How many cells a region may hold, judged by its box against those of the single cells around it.

The thresholds were chosen on smears with labelled cells; docs/results/accuracy.md measures them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CellCounts", "count_cells"]

_CLUMP_SIZE = 1.9
"""Of the geometric mean of a box's area and the square on its long side, in cells: two cells side by side have about
2.8, one long cell seldom 1.9."""
_LEAST_AREA, _MOST_AREA = 0.6, 1.9
"""What a cell of a clump adds to the area of its box, in cells: less where cells overlap, more where the box has room
beside them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CellCounts:
    """Of R regions.

    low, high: int32 [R], the fewest and the most cells that each may hold, from 1.
    clump: bool [R], more than one, likely; high is at least 2 then.
    """

    low: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]
    clump: npt.NDArray[np.bool_]


def count_cells(boxes: npt.NDArray[np.float32], *, cut: npt.NDArray[np.bool_]) -> CellCounts:
    """The regions of one field, or of one slide, against the median of its boxes: as long as most hold one cell, that
    is a single cell. Where there are but a few regions, or most are clumps, this says little.

    boxes: float32 [R, 4], x0 y0 x1 y1. cut: bool [R], at the border of the field: not asked for the median unless all
    are, and judged by what is seen of them.
    """
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 1)
    areas = sides.prod(axis=1)
    cell = np.median(areas if cut.all() else areas[~cut]) if len(areas) else 1.0
    relative = areas / cell
    clump = np.asarray(np.sqrt(relative * sides.max(axis=1) ** 2 / cell) >= _CLUMP_SIZE)
    low = np.ceil(relative / _MOST_AREA).clip(1)
    high = np.floor(relative / _LEAST_AREA).clip(np.maximum(low, 1 + clump))
    return CellCounts(low=low.astype(np.int32), high=high.astype(np.int32), clump=clump)
