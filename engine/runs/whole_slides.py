"""Run whole slides through an engine: their tiles as frames, the tiles' regions merged into those
of the slide.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rbc_engine.engine import Engine
from rbc_engine.lanes.cell_merge import open_merge
from rbc_engine.lanes.stages.doubts.tile_doubts import TileDoubts
from rbc_engine.sources.slides.tile_reader import (
    BLANK_LEVELS,
    SlideEnd,
    SlideStart,
    SlideStep,
    TileRead,
)
from rbc_engine.types.frames import Decoded
from rbc_engine.types.results import FieldResult, TileCounts

__all__ = ["WholeSlides"]


class WholeSlides:
    """Yield one FieldResult per slide from `results`.

    records, notes: what run.json says of the slides that have been started.
    """

    def __init__(self, engine: Engine) -> None:
        self.records: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._engine = engine
        self._slide: _Assembly | None = None

    def results(self, steps: Iterable[SlideStep]) -> Iterator[FieldResult]:
        """Yield the results. steps: of a SlideSource. If they end in the middle of a slide, it has
        no result.

        Raises what Engine.run raises.
        """
        # Taken from the source and not yet done; frames are in the engine, in the same order.
        waiting: deque[SlideStep] = deque()

        def frames() -> Iterator[Decoded]:
            for step in steps:
                waiting.append(step)
                if isinstance(step, TileRead) and step.frame is not None:
                    yield Decoded(ref=step.ref, frame=step.frame, seconds=step.seconds)

        for tile_result in self._engine.run(frames()):
            yield from self._take_until_frame(waiting)
            step = waiting.popleft()
            assert isinstance(step, TileRead)
            assert self._slide is not None
            self._slide.add_result(step, tile_result)
            yield from self._take_until_frame(waiting)
        yield from self._take_until_frame(waiting)

    def _take_until_frame(self, waiting: deque[SlideStep]) -> Iterator[FieldResult]:
        """Handle everything that does not go through the engine, up to the next tile that does."""
        while waiting:
            step = waiting[0]
            if isinstance(step, TileRead) and step.frame is not None:
                return
            waiting.popleft()
            if isinstance(step, SlideStart):
                self.notes += step.notes
                self.records.append(step.record)
                self._slide = _Assembly(step, self._engine)
            elif isinstance(step, TileRead):
                assert self._slide is not None
                self._slide.add_unrun(step)
            elif self._slide is None:
                yield _failed(step, step.error or "")
            else:
                slide, self._slide = self._slide, None
                self.notes += slide.notes()
                yield slide.finish(step)


class _Assembly:
    """Assemble one slide."""

    def __init__(self, start: SlideStart, engine: Engine) -> None:
        manifest = engine.pack.manifest
        self._start = start
        self._meter = engine.meter
        self._merge = open_merge(start.plan, manifest)
        self._canvas_um = manifest.detector.um_per_canvas_px
        self._run = self._blank = 0
        self._saturated = 0
        self._doubts = TileDoubts()
        self._seconds = 0.0
        self._spent = {name: {"read": 0.0, "merge": 0.0} for name in ("seconds", "cpu_seconds")}
        self._error: str | None = None

    def add_result(self, step: TileRead, result: FieldResult) -> None:
        self._run += 1
        self._count(step)
        self._seconds += result.seconds
        self._saturated += result.saturated
        self._doubts.add(result)
        if result.regions is None:
            x, y = step.tile.box[:2]
            self._error = self._error or f"{step.ref.field}: at x {x}, y {y}: {result.error}"
            return
        with self._merging():
            self._merge.add(step.tile, result.regions)

    def add_unrun(self, step: TileRead) -> None:
        self._count(step)
        self._meter.add("decode", step.seconds)
        self._seconds += step.seconds
        self._error = self._error or step.error
        self._blank += step.error is None

    def notes(self) -> list[str]:
        notes: list[str] = []
        if self._error is not None:
            return notes
        name, count = self._start.ref.field, self._start.plan.count
        if self._blank:
            notes.append(
                f"{name}: {self._blank} of {count} tiles were skipped: they show only background "
                f"(no two spots of theirs differ by more than {BLANK_LEVELS} grey levels)"
            )
        if self._saturated:
            notes.append(
                f"{name}: {self._saturated} of {count} tiles filled the detector's output: cells "
                "may be missing there"
            )
        return notes

    def finish(self, end: SlideEnd) -> FieldResult:
        if self._error is not None:
            return _failed(end, self._error, seconds=self._seconds)
        counts = TileCounts(run=self._run, blank=self._blank)
        self._start.record["tiles"] = {"run": counts.run, "blank": counts.blank}
        with self._meter.stage("write"), self._merging():
            regions = self._merge.finish()
        self._start.record.update(self._spent)
        plan, ref = self._start.plan, end.ref
        um_per_px = self._start.record["um_per_px"]
        if um_per_px is None and self._canvas_um is not None:
            um_per_px = plan.canvas_scale * self._canvas_um
        return FieldResult(
            slide=ref.slide,
            field=ref.field,
            path=str(ref.path),
            width=plan.columns.length_px,
            height=plan.rows.length_px,
            regions=regions,
            saturated=self._saturated > 0,
            um_per_px=um_per_px,
            um_per_px_from=self._start.record["um_per_px_from"],
            unfamiliar_distance=self._doubts.distance,
            uncovered=self._doubts.uncovered,
            flags=self._doubts.flags,
            seconds=self._seconds,
            tiles=counts,
        )

    def _count(self, step: TileRead) -> None:
        self._spent["seconds"]["read"] += step.seconds
        self._spent["cpu_seconds"]["read"] += step.cpu_seconds

    @contextmanager
    def _merging(self) -> Iterator[None]:
        started, cpu_started = time.perf_counter(), time.thread_time()
        yield
        self._spent["seconds"]["merge"] += time.perf_counter() - started
        self._spent["cpu_seconds"]["merge"] += time.thread_time() - cpu_started


def _failed(end: SlideEnd, error: str, *, seconds: float = 0.0) -> FieldResult:
    ref = end.ref
    return FieldResult(
        slide=ref.slide, field=ref.field, path=str(ref.path), error=error, seconds=seconds
    )
