"""Define the five outcomes of a frame of a session, and count them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rbc_engine.types.results import FieldResult

__all__ = ["Ended", "FrameCounts", "FrameStatus", "Latency", "PositionUm", "Ticket"]

PositionUm = tuple[float, float]
"""Position of the stage, x and y in µm."""


class FrameStatus(str, Enum):
    """Name the five outcomes of a frame."""

    DONE = "done"
    DROPPED = "dropped"
    """Given up for another frame, or by cancel, close, or the camera."""
    REJECTED = "rejected"
    """Never accepted: no room, or no longer open."""
    FAILED = "failed"
    """Could not be analysed."""
    STALE = "stale"
    """Too old before its turn came."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Ended:
    """Hold the outcome of one frame.

    number: which of the session's frames, from 0, in the order of submission.
    cause: a few words that are the same for all frames with the same cause; '' for those that are
    done.
    reason: the full reason for this frame; '' for those that are done.
    result: regions of a done frame; the error of a failed one; None for the others.
    waited_s: from submission until a lane took it, or until its outcome if none did.
    latency_s: from submission to its outcome.
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
    """Count a session's frames at one moment: submitted is always the sum of waiting, running and
    the five outcomes.

    late: of the done ones, those after their deadline.
    lost: of the dropped ones, those that were lost before they were submitted, as by a camera's
    buffer.
    unread: outcomes that nobody read in time, whose Ended was discarded; they are still counted
    under their status.
    callback_errors: outcomes whose callback raised.
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
        """Return `frames` of run.json."""
        names = ("submitted", "done", "dropped", "rejected", "failed", "stale")
        return {name: int(getattr(self, name)) for name in names}


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Hold the times from submission to outcome of the last few thousand done frames, in seconds;
    zeros without one.
    """

    frames: int = 0
    p50_s: float = 0.0
    p99_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """Return value of submit.

    number: of the frame, as in its Ended.
    ended: its outcome, if known already: it was refused, or could not be used.
    """

    number: int
    ended: Ended | None = None

    @property
    def accepted(self) -> bool:
        return self.ended is None
