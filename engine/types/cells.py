"""Describe single cells, and estimate how many of them a region may hold.

Where a pack's detector finds regions, the number follows from a region's box and those of the
single cells around it. The thresholds were chosen on smears with labelled cells;
docs/results/accuracy.md measures them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32, Int32, UInt8
from rbc_engine.types.kinds import are_red

__all__ = ["CellCounts", "Cells", "check_arrays", "count_cells", "rows_of_groups"]

_CLUMP_SIZE = 1.9
"""Threshold of the geometric mean of a box's area and the square on its long side, in cells: two
adjacent cells have about 2.8, one long cell seldom 1.9."""
_LEAST_AREA, _MOST_AREA = 0.6, 1.9
"""Area that a cell of a clump adds to its box, in cells: less where cells overlap, more where the
box has room next to them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Cells:
    """Hold the N single cells of one field, region by region, the surest of a region first.

    boxes: float32 [N, 4], x0 y0 x1 y1 in pixels of the full-resolution image, origin top left.
    scores: float32 [N], 0..1.
    kinds: uint8 [N], of Kind.
    region: int32 [N], the row of the region that holds each.
    """

    boxes: Float32
    scores: Float32
    kinds: UInt8
    region: Int32

    def __post_init__(self) -> None:
        count = len(self.boxes)
        check_arrays(
            self,
            {
                "boxes": ((count, 4), np.float32),
                "scores": ((count,), np.float32),
                "kinds": ((count,), np.uint8),
                "region": ((count,), np.int32),
            },
        )

    @classmethod
    def empty(cls) -> Cells:
        """Return no cells."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            kinds=np.zeros(0, np.uint8),
            region=np.zeros(0, np.int32),
        )

    @classmethod
    def in_order(
        cls, *, boxes: Float32, scores: Float32, kinds: UInt8, region: npt.NDArray[np.integer[Any]]
    ) -> Cells:
        """Sort cells that come in any order: by region, score falling, then box."""
        x0, y0, x1, y1 = boxes.T
        order = np.lexsort((y1, x1, y0, x0, -scores, region))
        return cls(
            boxes=boxes[order],
            scores=scores[order],
            kinds=kinds[order],
            region=region[order].astype(np.int32),
        )

    def per_region(self, regions: int) -> Int32:
        """Count the cells of each region, int32 [R]."""
        return np.bincount(self.region, minlength=regions).astype(np.int32)

    def of_regions(self, chosen: npt.NDArray[np.integer[Any]], *, regions: int) -> Cells:
        """Take the cells of chosen regions int [K], numbered 0..K-1 in that order.

        regions: R, of which they are.
        """
        counts = self.per_region(regions)
        rows = rows_of_groups(counts, chosen)
        return Cells(
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            kinds=self.kinds[rows],
            region=np.repeat(np.arange(len(chosen), dtype=np.int32), counts[chosen]),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"Cells({len(self)} cells)"


def rows_of_groups(
    counts: npt.NDArray[np.integer[Any]], chosen: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.int64]:
    """List the rows int64 [sum] of chosen groups of a table in which groups follow each other.

    counts: int [G]. chosen: int [K], indices of groups.
    """
    begins = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)[:-1]])[: len(counts)]
    lengths = counts[chosen].astype(np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    rows: npt.NDArray[np.int64] = np.arange(total) + np.repeat(
        begins[chosen] - (ends - lengths), lengths
    )
    return rows


def check_arrays(owner: object, expected: Mapping[str, tuple[tuple[int, ...], type]]) -> None:
    """Raise ValueError naming the attribute that is no array of its shape and dtype."""
    for name, (shape, dtype) in expected.items():
        array = getattr(owner, name)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{type(owner).__name__}.{name} must be {np.dtype(dtype).name} {list(shape)} "
                f"(got {array.dtype} {list(array.shape)})"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class CellCounts:
    """Hold counts of R regions.

    low, high: int32 [R], the fewest and the most cells that each may hold, from 1.
    clump: bool [R], more than one, likely; high is at least 2 then, and low is 1 without.
    """

    low: npt.NDArray[np.int32]
    high: npt.NDArray[np.int32]
    clump: npt.NDArray[np.bool_]


def count_cells(
    boxes: npt.NDArray[np.float32],
    *,
    cut: npt.NDArray[np.bool_],
    kinds: UInt8 | None = None,
) -> CellCounts:
    """Count the cells of one field's or one slide's regions, relative to the median of its boxes:
    as long as most hold one cell, that is a single cell. With only a few regions, or mostly clumps,
    the counts mean little.

    boxes: float32 [R, 4], x0 y0 x1 y1. cut: bool [R], at the border of the field: excluded from the
    median unless all are, and estimated from the visible part. kinds: uint8 [R], of Kind, None if
    all are red cells: a region of another kind counts as one cell and is excluded from the median.
    """
    if kinds is not None and not are_red(kinds).all():
        red = are_red(kinds)
        of_red = count_cells(boxes[red], cut=cut[red])
        low, high = (np.ones(len(boxes), np.int32) for _ in range(2))
        clump = np.zeros(len(boxes), np.bool_)
        low[red], high[red], clump[red] = of_red.low, of_red.high, of_red.clump
        return CellCounts(low=low, high=high, clump=clump)
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 1)
    areas = sides.prod(axis=1)
    cell = np.median(areas if cut.all() else areas[~cut]) if len(areas) else 1.0
    relative = areas / cell
    clump = np.asarray(np.sqrt(relative * sides.max(axis=1) ** 2 / cell) >= _CLUMP_SIZE)
    low = np.ceil(relative / _MOST_AREA).clip(1)
    high = np.floor(relative / _LEAST_AREA).clip(np.maximum(low, 1 + clump))
    return CellCounts(low=low.astype(np.int32), high=high.astype(np.int32), clump=clump)
