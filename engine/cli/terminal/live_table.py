"""Show the table of `rbc-engine live`: redrawn in a terminal, otherwise printed once at the end."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from rbc_engine.runs.live import LiveState
from rbc_engine.sinks.run_json import RunRecord

__all__ = ["LiveTable"]


class LiveTable:
    """Show the state of a live run; show: whether to draw at all."""

    def __init__(self, *, show: bool) -> None:
        self._console = Console()
        self._last: LiveState | None = None
        drawn = show and self._console.is_terminal
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if drawn else None
        )

    def show_state(self, state: LiveState) -> None:
        self._last = state
        if self._live is not None:
            self._live.update(_table(state), refresh=True)

    def print_end(self, summary: RunRecord, folder: Path) -> None:
        """Print the last state, the warnings, and where the results are."""
        if self._last is not None:
            self._console.print(_table(self._last))
        for warning in summary.warnings:
            self._console.print(f"note: {escape(warning)}", soft_wrap=True)
        self._console.print(f"results in {escape(str(folder))}", soft_wrap=True)

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()


def _table(state: LiveState) -> Table:
    frames, share = state.frames, state.monitor.share()
    seconds = max(state.seconds, 1e-6)
    table = Table("", "", "", "", show_header=False)
    abnormal = "" if share.fraction is None else f"{share.fraction:.1%}"
    interval = "" if share.fraction is None else f"{share.low:.1%} to {share.high:.1%}"
    rows = [
        ("regions", str(state.monitor.regions), "clear of border", str(share.regions)),
        ("seen twice", str(state.monitor.repeated), "of these abnormal", str(share.count)),
        ("cut by border", str(state.monitor.border), "share", abnormal),
        ("seconds", f"{state.seconds:.1f}", "95 % interval", interval),
        ("frames", str(frames.submitted), "done", str(frames.done)),
        ("in flight", str(frames.in_flight), "dropped", str(frames.dropped)),
        ("frames/s", f"{frames.submitted / seconds:.1f}", "rejected", str(frames.rejected)),
        ("done/s", f"{frames.done / seconds:.1f}", "failed", str(frames.failed)),
        ("latency p50", f"{state.latency.p50_s * 1e3:.0f} ms", "stale", str(frames.stale)),
        (
            "latency p99",
            f"{state.latency.p99_s * 1e3:.0f} ms",
            "of dropped, lost",
            str(frames.lost),
        ),
    ]
    for row in rows:
        table.add_row(*row)
    table.columns[1].justify = table.columns[3].justify = "right"
    return table
