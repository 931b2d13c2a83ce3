"""Support decisions during a scan: what has been counted so far, and whether that is enough."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rbc_engine.errors import UsageError
from rbc_engine.stats.seen import SeenRegions
from rbc_engine.stats.stage_map import StageMap
from rbc_engine.stats.wilson import wilson_interval
from rbc_engine.types.ends import Ended, PositionUm
from rbc_engine.types.regions import RegionFlag
from rbc_engine.types.results import FieldResult

__all__ = ["ABNORMAL", "Share", "SlideMonitor"]

ABNORMAL = "abnormal"
"""What a share may be of, besides the types of the pack."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Hold the share of the counted regions clear of the border that are of one kind.

    low, high: ends of the 95 % Wilson interval of the share, regions taken as independent; 0 and 1
    without regions.
    """

    count: int
    regions: int
    low: float
    high: float

    @property
    def fraction(self) -> float | None:
        """Return the share, 0..1; None without regions."""
        return self.count / self.regions if self.regions else None

    @property
    def width(self) -> float:
        return self.high - self.low


class SlideMonitor:
    """Keep running counts of the red regions of one slide. Methods may be called from any thread.

    Shares are of regions clear of the border, as in slides.csv.

        monitor = SlideMonitor(engine.pack.types, stage=StageMap.of_pixel(0.11))
        with engine.session(on_ended=monitor.add) as session:
            while not monitor.enough(width=0.02, min_cells=1000):
                ...

    types: of the pack, in its order.
    stage: how pixels lie on the stage. With it, a region that overlapping fields show twice counts
        once, by the position of the stage; a region cut by the border is replaced by the whole one.
        Without it every region counts. A cell counts as seen if half of its box lies where one was.
            stage_error_um: largest error of the stage's reported position. It should be much less
            than a cell's width; otherwise
        neighbours are confused.
    """

    def __init__(
        self, types: Sequence[str], *, stage: StageMap | None = None, stage_error_um: float = 1.0
    ) -> None:
        if ABNORMAL in types:
            raise UsageError(
                f"types must not hold {ABNORMAL!r}, the name of the share of all abnormal types"
            )
        self._types = tuple(types)
        self._lock = threading.Lock()
        if not 0 <= stage_error_um <= 10:
            raise UsageError(f"stage_error_um must lie in 0..10 µm (got {stage_error_um})")
        self._stage = stage
        self._stage_error_um = stage_error_um
        self.clear()

    def clear(self) -> None:
        """Start a new slide."""
        with self._lock:
            self._seen = None
            if self._stage is not None:
                self._seen = SeenRegions(self._stage, stage_error_um=self._stage_error_um)
            self._fields = self._regions = self._repeated = 0
            self._border = self._abnormal = 0
            self._type_counts = np.zeros(len(self._types), np.int64)

    def add(self, ended: Ended) -> None:
        """Count a frame that is done; any other adds nothing. Suits Engine.session(on_ended=...).

        Raises UsageError if regions are to be counted once, but the frame has no position.
        """
        if ended.ok and ended.result is not None:
            self.add_result(ended.result, position_um=ended.position_um)

    def add_result(self, result: FieldResult, *, position_um: PositionUm | None = None) -> None:
        """Count one field; like `add`."""
        if result.regions is None:
            return
        regions = result.regions.take(result.regions.red)
        if regions.has.shape[1] != len(self._types):
            raise UsageError(
                f"results must have the monitor's {len(self._types)} types (got "
                f"{regions.has.shape[1]}); make it with the types of the session's pack"
            )
        with self._lock:
            cut = (regions.flags & RegionFlag.BORDER) > 0
            new, better = np.ones(len(regions), np.bool_), np.zeros(len(regions), np.bool_)
            if self._seen is not None:
                if position_um is None:
                    raise UsageError(
                        f"field {result.field!r} has no position_um; submit it with one, or make "
                        f"the monitor without stage"
                    )
                overlap = self._seen.add(
                    regions, frame_hw=(result.height, result.width), position_um=position_um
                )
                new, better = overlap.new, overlap.better
            self._fields += 1
            self._regions += int(new.sum())
            self._repeated += int((~new).sum())
            self._border += int((new & cut).sum()) - int(better.sum())
            shared = (new & ~cut) | better
            self._abnormal += int(regions.abnormal[shared].sum())
            self._type_counts += regions.has[shared].sum(axis=0, dtype=np.int64)

    @property
    def needs_position(self) -> bool:
        """Return whether every frame must come with its position on the stage."""
        return self._stage is not None

    @property
    def fields(self) -> int:
        with self._lock:
            return self._fields

    @property
    def regions(self) -> int:
        """Return the number of regions counted, each once."""
        with self._lock:
            return self._regions

    @property
    def border(self) -> int:
        """Return the number of these that the border cuts: shares leave them out."""
        with self._lock:
            return self._border

    @property
    def repeated(self) -> int:
        """Return the number of regions not counted because an earlier field shows them."""
        with self._lock:
            return self._repeated

    def share(self, of: str = ABNORMAL) -> Share:
        """Return the share of 'abnormal' or of one of the types. Raises UsageError for another
        name.
        """
        with self._lock:
            count, regions = self._count_of(of), self._regions - self._border
        low, high = wilson_interval(count, regions) if regions else (0.0, 1.0)
        return Share(count=count, regions=regions, low=low, high=high)

    def shares(self) -> dict[str, Share]:
        """Return the shares of 'abnormal' and of every type."""
        return {name: self.share(name) for name in (ABNORMAL, *self._types)}

    def enough(self, *, width: float = 0.02, min_cells: int = 1000, of: str = ABNORMAL) -> bool:
        """Return whether the interval of a share is at most this wide, and is of at least
        min_cells regions.

        width: of the 95 % interval, as a share: 0.02 is two percentage points from end to end.

        Checking after every field and stopping at the first that is enough makes the interval cover
        the truth slightly less often than 95 %; min_cells keeps that effect small.
        """
        if not 0 < width <= 1:
            raise UsageError(f"width must lie in 0..1 and not be 0 (got {width})")
        share = self.share(of)
        return share.regions >= max(min_cells, 1) and share.width <= width

    def __repr__(self) -> str:
        share = self.share()
        return (
            f"SlideMonitor({self.fields} fields, {self.regions} regions, {share.count} of "
            f"{share.regions} that no border cuts abnormal)"
        )

    def _count_of(self, of: str) -> int:
        if of == ABNORMAL:
            return self._abnormal
        if of not in self._types:
            raise UsageError(
                f"of must be {ABNORMAL!r} or one of {', '.join(self._types)} (got {of!r})"
            )
        return int(self._type_counts[self._types.index(of)])
