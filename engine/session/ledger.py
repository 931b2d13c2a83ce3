"""Keep the books of a session: the outcome of every frame, counted, with reasons. Nothing here
waits or locks.
"""

from __future__ import annotations

from collections import Counter, deque

from rbc_engine.types.ends import Ended, FrameCounts, FrameStatus, Latency

__all__ = ["Ledger"]

_LATENCIES = 2048
"""Number of recent frames for the percentiles."""

_PROBLEMS = 100


class Ledger:
    """Keep the books of one session. Its owner calls it under its own lock."""

    def __init__(self) -> None:
        self._submitted = self._waiting = self._running = 0
        self._late = self._lost = 0
        self._ends: Counter[FrameStatus] = Counter()
        self._causes: Counter[tuple[FrameStatus, str]] = Counter()
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES)
        self._problems: Counter[str] = Counter()
        self.unread = 0
        self.callback_errors = 0

    def submit(self) -> int:
        """Count a new frame, which waits. Returns its number."""
        self._submitted += 1
        self._waiting += 1
        return self._submitted - 1

    def run(self) -> None:
        """Count a waiting frame as taken up."""
        self._waiting -= 1
        self._running += 1

    def end(self, ended: Ended, *, running: bool) -> None:
        """Count an outcome. running: whether the frame was taken up; else it ends while it
        waits.
        """
        if running:
            self._running -= 1
        else:
            self._waiting -= 1
        self._ends[ended.status] += 1
        if ended.ok:
            self._late += ended.late
            self._latencies_s.append(ended.latency_s)
        else:
            self._causes[ended.status, ended.cause] += 1

    def lose(self, count: int, cause: str) -> None:
        """Count frames that the camera made and that never arrived: submitted and dropped at
        once.
        """
        self._submitted += count
        self._lost += count
        self._ends[FrameStatus.DROPPED] += count
        self._causes[FrameStatus.DROPPED, cause] += count

    def problem(self, text: str) -> bool:
        """Note a problem that is not a frame's outcome. Returns whether it is the first of its
        kind.

        The text of at most a hundred kinds is kept; further ones are counted together.
        """
        if text not in self._problems and len(self._problems) >= _PROBLEMS:
            text = "other problems"
        self._problems[text] += 1
        return self._problems[text] == 1

    @property
    def counts(self) -> FrameCounts:
        return FrameCounts(
            submitted=self._submitted,
            waiting=self._waiting,
            running=self._running,
            late=self._late,
            lost=self._lost,
            unread=self.unread,
            callback_errors=self.callback_errors,
            **{status.value: self._ends[status] for status in FrameStatus},
        )

    @property
    def causes(self) -> dict[str, int]:
        """Return how many frames were not done, by 'status: cause'."""
        return {
            f"{status.value}: {cause}": count for (status, cause), count in self._causes.items()
        }

    @property
    def problems(self) -> dict[str, int]:
        return dict(self._problems)

    @property
    def latency(self) -> Latency:
        ordered = sorted(self._latencies_s)
        if not ordered:
            return Latency()
        last = len(ordered) - 1
        return Latency(
            frames=len(ordered),
            p50_s=ordered[round(0.5 * last)],
            p99_s=ordered[round(0.99 * last)],
        )
