"""Count over the fields of a slide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rbc_engine.stats.wilson import wilson_interval
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag
from rbc_engine.types.results import FieldResult

__all__ = ["SlideCounts", "SlideTally"]


def _no_types() -> npt.NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(eq=False, kw_only=True)
class SlideCounts:
    """Hold the sums over the fields of one slide.

    regions: of every kind; red_regions and the others count those of red cells alone, where nothing
        else is said.
    type_counts: int64 [T], the regions that hold each type; [0] as long as every field failed.
    whole, whole_abnormal, whole_type_counts: regions without the flag border, those of them that
        are abnormal, and that hold each type: what shares and grades are of.
    cells: single cells of every kind, as far as they are known one by one.
    red_cells: of regions whose cells are known, these; of others, the fewest that they may hold.
    cells_low, cells_high: the fewest and the most cells that all red regions together may hold.
    white_cells, platelets: regions of these kinds.
    """

    slide: str
    fields: int = 0
    failed: int = 0
    regions: int = 0
    red_regions: int = 0
    abnormal: int = 0
    type_counts: npt.NDArray[np.int64] = field(default_factory=_no_types)
    whole: int = 0
    whole_abnormal: int = 0
    whole_type_counts: npt.NDArray[np.int64] = field(default_factory=_no_types)
    cells: int = 0
    red_cells: int = 0
    cells_low: int = 0
    cells_high: int = 0
    white_cells: int = 0
    platelets: int = 0

    @property
    def border(self) -> int:
        """Return the number of red regions that the border cuts: shares leave them out."""
        return self.red_regions - self.whole

    @property
    def abnormal_fraction(self) -> float | None:
        """Return the share of whole regions that are abnormal, 0..1; None without any."""
        return self.whole_abnormal / self.whole if self.whole else None

    @property
    def ci_low(self) -> float | None:
        """Return the lower end of the 95 % Wilson interval of abnormal_fraction, regions taken as
        independent.
        """
        return wilson_interval(self.whole_abnormal, self.whole)[0] if self.whole else None

    @property
    def ci_high(self) -> float | None:
        """Return the upper end of that interval."""
        return wilson_interval(self.whole_abnormal, self.whole)[1] if self.whole else None

    def per_100_red(self, count: int) -> float | None:
        """Relate a count to 100 red cells; None without any."""
        return 100 * count / self.red_cells if self.red_cells else None

    def add(self, result: FieldResult) -> None:
        self.fields += 1
        regions = result.regions
        if regions is None:
            self.failed += 1
            return
        self.regions += len(regions)
        self.abnormal += int(regions.abnormal.sum())
        red = regions.red
        self.red_regions += int(red.sum())
        whole = red & ((regions.flags & RegionFlag.BORDER) == 0)
        self.whole += int(whole.sum())
        self.whole_abnormal += int(regions.abnormal[whole].sum())
        known = regions.cells.per_region(len(regions))
        self.cells += len(regions.cells)
        self.red_cells += int(np.where(known > 0, known, regions.cells_low)[red].sum())
        self.cells_low += int(regions.cells_low[red].sum())
        self.cells_high += int(regions.cells_high[red].sum())
        self.white_cells += int((regions.kinds == Kind.WHITE_CELL).sum())
        self.platelets += int((regions.kinds == Kind.PLATELET).sum())
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
