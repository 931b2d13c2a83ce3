"""Show the progress of a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbc_engine.types.results import FieldResult

__all__ = ["RunProgress"]


class RunProgress:
    """Show fields, slides, the tile of a whole slide, regions per second and time left, if stderr
    is a terminal.
    """

    def __init__(self, fields: int, *, show: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("fields"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[slides]} slides{task.fields[tile]}"),
            TextColumn("{task.fields[regions_per_s]:.0f} regions/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (show and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=fields, slides=0, tile="", regions_per_s=0.0)
        self._done = 0
        self._slides: set[str] = set()
        self._regions = 0
        self._started = time.perf_counter()

    def add(self, result: FieldResult, *, kept: bool) -> None:
        """Count one result; kept: it was there already, so it is left out of the speed."""
        self._slides.add(result.slide)
        if result.regions is not None and not kept:
            self._regions += len(result.regions)
        seconds = time.perf_counter() - self._started
        self._done += 1
        self._bar.update(
            self._task,
            completed=self._done,
            slides=len(self._slides),
            tile="",
            regions_per_s=self._regions / max(seconds, 1e-6),
        )

    def add_tile(self, tile: int, of: int) -> None:
        """Move the bar within the field that a whole slide is, tile by tile."""
        self._bar.update(
            self._task, completed=self._done + (tile - 1) / of, tile=f", tile {tile} of {of}"
        )

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
