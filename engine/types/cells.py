"""Estimate how many cells a region may hold from its box and those of the single cells around it.

The thresholds were chosen on smears with labelled cells; docs/results/accuracy.md measures them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CellCounts", "count_cells"]

_CLUMP_SIZE = 1.9
"""Threshold of the geometric mean of a box's area and the square on its long side, in cells: two
adjacent cells have about 2.8, one long cell seldom 1.9."""
_LEAST_AREA, _MOST_AREA = 0.6, 1.9
"""Area that a cell of a clump adds to its box, in cells: less where cells overlap, more where the
box has room next to them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CellCounts:
    """Hold counts of R regions.

    low, high: int32 [R], the fewest and the most cells that each may hold, from 1.
    clump: bool [R], more than one, likely; high is at least 2 then.
    """

    low: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]
    clump: npt.NDArray[np.bool_]


def count_cells(boxes: npt.NDArray[np.float32], *, cut: npt.NDArray[np.bool_]) -> CellCounts:
    """Count the cells of one field's or one slide's regions, relative to the median of its boxes:
    as long as most hold one cell, that is a single cell. With only a few regions, or mostly clumps,
    the counts mean little.

    boxes: float32 [R, 4], x0 y0 x1 y1. cut: bool [R], at the border of the field: excluded from the
    median unless all are, and estimated from the visible part.
    """
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 1)
    areas = sides.prod(axis=1)
    cell = np.median(areas if cut.all() else areas[~cut]) if len(areas) else 1.0
    relative = areas / cell
    clump = np.asarray(np.sqrt(relative * sides.max(axis=1) ** 2 / cell) >= _CLUMP_SIZE)
    low = np.ceil(relative / _MOST_AREA).clip(1)
    high = np.floor(relative / _LEAST_AREA).clip(np.maximum(low, 1 + clump))
    return CellCounts(low=low.astype(np.int32), high=high.astype(np.int32), clump=clump)
