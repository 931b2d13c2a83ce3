"""Show on stderr what is being compiled: a line per network, and a bar if stderr is a terminal."""

from __future__ import annotations

import sys
import threading

__all__ = ["CompileWatch"]


class CompileWatch:
    """Show compilations; see rbc_engine.devices.base.BuildWatch. Use it in a `with` block, which
    removes the bar.

    quiet: show nothing. stop: when set, a compilation under way ends.
    """

    def __init__(self, *, quiet: bool = False, stop: threading.Event | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._quiet = quiet
        self._stop = stop or threading.Event()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task: TaskID | None = None

    def line(self, text: str) -> None:
        if self._quiet:
            return
        if self._bar.live.is_started:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def progress(self, phase: str, done: int, total: int) -> bool:
        if not self._bar.disable:
            self._bar.start()
            if self._task is None:
                self._task = self._bar.add_task(phase)
            self._bar.update(self._task, description=phase, completed=done, total=total)
        return not self._stop.is_set()

    def __enter__(self) -> CompileWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
