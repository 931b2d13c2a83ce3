"""Count over the fields of a slide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rbc_engine.stats.wilson import wilson_interval
from rbc_engine.types.results import FieldResult, RegionFlag

__all__ = ["SlideCounts", "SlideTally"]


def _no_types() -> npt.NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(eq=False, kw_only=True)
class SlideCounts:
    """Hold the sums over the fields of one slide.

    type_counts: int64 [T], the regions that hold each type; [0] as long as every field failed.
    whole, whole_type_counts: the same of regions without the flag border, on which grades are
    based.
    cells_low, cells_high: the least and the largest number of cells in all regions together.
    """

    slide: str
    fields: int = 0
    failed: int = 0
    regions: int = 0
    abnormal: int = 0
    type_counts: npt.NDArray[np.int64] = field(default_factory=_no_types)
    whole: int = 0
    whole_type_counts: npt.NDArray[np.int64] = field(default_factory=_no_types)
    cells_low: int = 0
    cells_high: int = 0

    @property
    def abnormal_fraction(self) -> float | None:
        """Return the share of abnormal regions, 0..1; None without regions."""
        return self.abnormal / self.regions if self.regions else None

    @property
    def ci_low(self) -> float | None:
        """Return the lower end of the 95 % Wilson interval of abnormal_fraction, regions taken as
        independent.
        """
        return wilson_interval(self.abnormal, self.regions)[0] if self.regions else None

    @property
    def ci_high(self) -> float | None:
        """Return the upper end of that interval."""
        return wilson_interval(self.abnormal, self.regions)[1] if self.regions else None

    def add(self, result: FieldResult) -> None:
        self.fields += 1
        regions = result.regions
        if regions is None:
            self.failed += 1
            return
        self.regions += len(regions)
        self.abnormal += int(regions.abnormal.sum())
        whole = (regions.flags & RegionFlag.BORDER) == 0
        self.whole += int(whole.sum())
        self.cells_low += int(regions.cells_low.sum())
        self.cells_high += int(regions.cells_high.sum())
        self.type_counts = _added(self.type_counts, regions.has)
        self.whole_type_counts = _added(self.whole_type_counts, regions.has[whole])


def _added(counts: npt.NDArray[np.int64], has: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    more: npt.NDArray[np.int64] = has.sum(axis=0, dtype=np.int64)
    return counts + more if counts.size else more


class SlideTally:
    """Count for every slide of a run; its memory grows with the slides, not with the fields."""

    def __init__(self) -> None:
        self._slides: dict[str, SlideCounts] = {}

    def add(self, result: FieldResult) -> None:
        counts = self._slides.get(result.slide)
        if counts is None:
            counts = self._slides[result.slide] = SlideCounts(slide=result.slide)
        counts.add(result)

    def rows(self) -> Iterator[SlideCounts]:
        """Yield the slides in the order in which they first appeared."""
        return iter(self._slides.values())
