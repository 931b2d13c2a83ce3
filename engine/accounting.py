"""What became of every frame of a session: five ends, counted, with their reasons. Nothing here waits or locks."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum

from rbc_engine.types import FieldResult

__all__ = ["Ended", "FrameCounts", "FrameStatus", "Latency", "Ledger", "PositionUm"]

PositionUm = tuple[float, float]
"""Where the stage was, x and y in µm."""

_LATENCIES = 2048
"""Frames that the percentiles look back on."""
_PROBLEMS = 100


class FrameStatus(str, Enum):
    """The five ways a frame can end."""

    DONE = "done"
    DROPPED = "dropped"
    """Given up for another frame, or by cancel, close, or the camera."""
    REJECTED = "rejected"
    """Never taken: no room, or no longer open."""
    FAILED = "failed"
    """Could not be analysed."""
    STALE = "stale"
    """Too old before its turn came."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Ended:
    """The end of one frame.

    number: which of the session's frames, from 0, in the order of submission.
    cause: a few words that are the same for all frames that ended so; '' for those that are done.
    reason: the whole of it for this frame; '' for those that are done.
    result: regions of a done frame; the error of a failed one; None for the others.
    waited_s: from submission until a lane took it, or until its end if none did.
    latency_s: from submission to its end.
    late: done, but after its deadline.
    """

    number: int
    status: FrameStatus
    slide: str
    field: str
    position_um: PositionUm | None = None
    cause: str = ""
    reason: str = ""
    result: FieldResult | None = None
    waited_s: float = 0.0
    latency_s: float = 0.0
    late: bool = False

    @property
    def ok(self) -> bool:
        return self.status is FrameStatus.DONE

    def __repr__(self) -> str:
        why = f", {self.reason}" if self.reason else ""
        return f"Ended({self.number}, {self.field!r}, {self.status.value}{why})"


@dataclass(frozen=True, kw_only=True)
class FrameCounts:
    """A session's frames at one moment: submitted is the sum of waiting, running and the five ends, always.

    late: of the done ones, those after their deadline.
    lost: of the dropped ones, those that were lost before they were submitted, as by a camera's buffer.
    unread: ends that nobody read in time, whose Ended was thrown away; they stand in their own count all the same.
    callback_errors: ends whose callback raised.
    """

    submitted: int = 0
    waiting: int = 0
    running: int = 0
    done: int = 0
    dropped: int = 0
    rejected: int = 0
    failed: int = 0
    stale: int = 0
    late: int = 0
    lost: int = 0
    unread: int = 0
    callback_errors: int = 0

    @property
    def ended(self) -> int:
        return self.done + self.dropped + self.rejected + self.failed + self.stale

    @property
    def in_flight(self) -> int:
        return self.waiting + self.running

    @property
    def add_up(self) -> bool:
        return self.submitted == self.in_flight + self.ended

    def record(self) -> dict[str, int]:
        """`frames` of run.json."""
        names = ("submitted", "done", "dropped", "rejected", "failed", "stale")
        return {name: int(getattr(self, name)) for name in names}


@dataclass(frozen=True, kw_only=True)
class Latency:
    """From submission to the end of the last few thousand done frames, in seconds; zeros without one."""

    frames: int = 0
    p50_s: float = 0.0
    p99_s: float = 0.0


class Ledger:
    """The books of one session. Its owner calls it under its own lock."""

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
        """A new frame, which waits. Returns its number."""
        self._submitted += 1
        self._waiting += 1
        return self._submitted - 1

    def run(self) -> None:
        """A waiting frame is taken up."""
        self._waiting -= 1
        self._running += 1

    def end(self, ended: Ended, *, running: bool) -> None:
        """running: whether it was taken up; else it ends while it waits."""
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
        """Frames that the camera made and that never arrived: submitted and dropped at once."""
        self._submitted += count
        self._lost += count
        self._ends[FrameStatus.DROPPED] += count
        self._causes[FrameStatus.DROPPED, cause] += count

    def problem(self, text: str) -> bool:
        """Notes a trouble that is no frame's end. Whether it is the first of its kind.

        Of a hundred kinds at most the text is kept; further ones are counted together.
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
        """How many frames ended otherwise than done, by 'status: cause'."""
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
