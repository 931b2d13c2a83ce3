"""Choose what to classify: red regions of few cells whole, larger ones cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rbc_engine.lanes.stages.group import Grouped
from rbc_engine.types.arrays import Float32
from rbc_engine.types.cells import rows_of_groups
from rbc_engine.types.kinds import are_red

__all__ = ["Subjects", "over_regions", "subjects_of"]

Values = TypeVar("Values", bound=npt.NDArray[Any])


@dataclass(frozen=True, eq=False, kw_only=True)
class Subjects:
    """Hold the P subjects of one frame, in the order of the regions.

    boxes: float32 [P, 4], x0 y0 x1 y1 in frame px. scores: float32 [P], the detector's.
    region: int64 [P], ascending, the row of the region that each is, or is a cell of.
    """

    boxes: Float32
    scores: Float32
    region: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)


def subjects_of(found: Grouped, *, whole_up_to: int) -> Subjects:
    """Choose what to classify. whole_up_to: cells of a region that is classified as a whole."""
    counts = found.cells.per_region(len(found.boxes))
    red = are_red(found.kinds)
    whole = np.flatnonzero(red & (counts <= whole_up_to))
    apart = np.flatnonzero(red & (counts > whole_up_to))
    rows = rows_of_groups(counts, apart)
    region = np.concatenate([whole, found.cells.region[rows]]).astype(np.int64)
    order = np.argsort(region, kind="stable")
    return Subjects(
        boxes=np.concatenate([found.boxes[whole], found.cells.boxes[rows]])[order],
        scores=np.concatenate([found.scores[whole], found.cells.scores[rows]])[order],
        region=region[order],
    )


def over_regions(values: Values, region: npt.NDArray[np.int64], count: int) -> Values:
    """Take the largest of each region's values: [P, ...] to [R, ...], 0 for a region without any.

    region: int64 [P], ascending. count: R.
    """
    largest: Values = np.zeros((count, *values.shape[1:]), values.dtype)  # type: ignore[assignment]
    if len(region):
        begins = np.flatnonzero(np.diff(region, prepend=-1))
        largest[region[begins]] = np.maximum.reduceat(values, begins, axis=0)
    return largest
