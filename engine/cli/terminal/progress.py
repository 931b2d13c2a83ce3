"""Show the progress of a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbc_engine.runs.run_folder import RunProgress

__all__ = ["ProgressBar"]


class ProgressBar:
    """A bar with fields, slides, the tile of a whole slide, regions per second and time left; nothing where stderr is no
    terminal. Use it in a `with` block, which takes the bar away."""

    def __init__(self, *, show: bool) -> None:
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
        self._task = self._bar.add_task("", total=None, slides=0, tile="", regions_per_s=0.0)
        self._started = time.perf_counter()

    def show(self, progress: RunProgress) -> None:
        """Shows how far the run is; tile by tile within the field that a whole slide is."""
        if progress.begins:
            self._started = time.perf_counter()
            self._bar.start()
        part, tile = 0.0, ""
        if progress.tile:
            part = (progress.tile - 1) / progress.tiles
            tile = f", tile {progress.tile} of {progress.tiles}"
        self._bar.update(
            self._task,
            total=progress.fields,
            completed=progress.done + part,
            slides=progress.slides,
            tile=tile,
            regions_per_s=progress.regions / max(time.perf_counter() - self._started, 1e-6),
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
