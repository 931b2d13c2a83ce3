"""Track the frames of a session from submission to outcome: places, the queue, and the one way to
end.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbc_engine.errors import SessionClosedError
from rbc_engine.lanes.own_process import OwnCondition
from rbc_engine.session.field_names import FieldNames
from rbc_engine.session.ledger import Ledger
from rbc_engine.session.outbox import Outbox
from rbc_engine.session.pixels import BufferPool, PixelFormat, RawArray
from rbc_engine.session.session_options import SessionOptions
from rbc_engine.types.ends import Ended, FrameStatus, PositionUm
from rbc_engine.types.frames import DevicePixels
from rbc_engine.types.results import FieldResult

__all__ = ["Flow", "InFlight"]

_LOG = logging.getLogger("rbc_engine.session")


@dataclass(eq=False, kw_only=True)
class InFlight:
    """Hold one frame from submission to its outcome. Times on the clock of time.perf_counter.

    stale_s: when it becomes too old to start. taken_s: when a lane took it, None before.
    number: given when it enters. cancels: calls of cancel before it entered.
    raw: its pixels; None before it was copied, and once it has ended. pooled: raw came from
    Flow.pool.
    has_place: it counts among those in flight.
    """

    slide: str
    field: str
    path: str
    pixels: PixelFormat
    position_um: PositionUm | None = None
    submitted_s: float
    stale_s: float = math.inf
    number: int = -1
    cancels: int = 0
    raw: RawArray | DevicePixels | None = None
    pooled: bool = False
    has_place: bool = False
    taken_s: float | None = None
    ended: bool = False


class Flow:
    """Hold the state of a session. Every method and attribute requires the lock, `changed`, except
    `enter` and `admit`.

    The lock is re-entrant. No call that takes a lock of the engine's workers may be made under it:
    they call back under theirs.

    trouble: what to report of a callback that holds everything up, '' if none does.
    on_end: called after every outcome.
    """

    def __init__(self, options: SessionOptions, *, limit: int) -> None:
        self.options = options
        self.limit = limit
        self.changed = OwnCondition("session")
        self.ledger = Ledger()
        self.outbox = Outbox(in_order=options.order == "submitted", most=options.max_unread)
        self.pool = BufferPool(limit)
        self.names = FieldNames()
        self.open: dict[int, InFlight] = {}
        self.waiting: deque[InFlight] = deque()
        self.accepting = True
        self.cancels = 0
        self.wakers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self.trouble: Callable[[], str] = str
        self.on_end: Callable[[], None] = lambda: None
        self._places = 0

    @property
    def is_over(self) -> bool:
        """Return whether no frame is in flight or will come."""
        return not self.accepting and not self.open

    @property
    def is_full(self) -> bool:
        if self._places >= self.limit:
            return True
        # A caller that blocks must not lose results either: every frame in flight has its place in
        # the outbox.
        unread = self.outbox.kept + self._places
        return self.options.on_full == "block" and unread >= self.options.max_unread

    def enter(self, entry: InFlight, *, unusable: str, until_s: float) -> Ended | None:
        """Count a frame and find it a place, waiting for one with the lock released if allowed; or
        end it. Takes the lock.

        unusable: why it can only fail; '' if it is usable.

        Raises SessionClosedError if no frame is taken any more.
        """
        with self.changed:
            entry.number = self.ledger.submit()
            entry.field = self.names.unique(entry.slide, entry.field, number=entry.number)
            entry.cancels = self.cancels
            self.open[entry.number] = entry
            if not self.accepting:
                # Whoever reads outcomes may have left by now; the submitter gets the error.
                self.end(entry, FrameStatus.REJECTED, "the session is closed", notify=False)
                raise SessionClosedError(
                    "the session takes no more frames: it was finished or closed; open a new one"
                )
            self.outbox.expect(entry.number)
            if unusable:
                return self.end(entry, FrameStatus.FAILED, "unusable frame", unusable)
            try:
                return self._make_room(entry, until_s=until_s)
            except BaseException:  # Ctrl-C while it waited
                if not entry.ended:
                    self.end(entry, FrameStatus.REJECTED, "submit was interrupted")
                raise

    def admit(self, entry: InFlight, raw: RawArray | DevicePixels, *, copy: bool) -> Ended | None:
        """Put a frame that has its place in the queue; or end it. Takes the lock."""
        cause = ""
        buffer: RawArray | DevicePixels | None = raw
        if copy and isinstance(raw, np.ndarray):
            # Outside the lock: a large frame takes a millisecond.
            try:
                buffer = self.pool.copy(raw)
            except MemoryError:
                buffer, cause = None, "no memory for a copy of the frame"
        with self.changed:
            if entry.ended:  # close gave up on it
                return None
            entry.raw, entry.pooled = buffer, copy
            if cause:
                return self.end(entry, FrameStatus.FAILED, cause)
            if entry.cancels != self.cancels:
                return self.end(entry, FrameStatus.DROPPED, "cancelled")
            self.waiting.append(entry)
        return None

    def _make_room(self, entry: InFlight, *, until_s: float) -> Ended | None:
        """Return a place among those in flight for this frame; or its outcome. Waits under 'block'
        only.
        """
        policy = self.options.on_full
        full = f"the session is full: {self.limit} frames in flight"
        if self.is_full:
            self.end_stale()
        if policy == "block":
            self.wait_until(until_s, lambda: not (self.accepting and self.is_full))
            if not self.accepting:
                return self.end(entry, FrameStatus.REJECTED, "the session was closed")
            if self.is_full:
                unread = f"{self.outbox.kept} outcomes wait to be read"
                why = self.trouble() or (full if self._places >= self.limit else unread)
                waited_s = time.perf_counter() - entry.submitted_s
                reason = f"no room within {waited_s:.3g} s: {why}"
                return self.end(entry, FrameStatus.REJECTED, "no room in time", reason)
        elif self.is_full:
            if policy == "reject":
                return self.end(entry, FrameStatus.REJECTED, "full", full)
            if policy == "drop_newest":
                return self.end(entry, FrameStatus.DROPPED, "full", full)
            if not self.waiting:
                return self.end(entry, FrameStatus.DROPPED, "full", f"{full}, all of them in lanes")
            reason = f"{full}; dropped for a newer one"
            self.end(self.waiting.popleft(), FrameStatus.DROPPED, "full", reason)
        entry.has_place = True
        self._places += 1
        return None

    def take_batch(self, *, turns: int, most: int) -> list[InFlight]:
        """Take what the lane that asks now is to analyse: its share of the waiting frames.

        turns: how many lanes are about to ask, including this one. most: frames that it takes at
        once.
        """
        self.end_stale()
        share = -(-len(self.waiting) // turns)
        batch = [self.waiting.popleft() for _ in range(min(share, most))]
        now = time.perf_counter()
        for entry in batch:
            self.ledger.run()
            entry.taken_s = now
        return batch

    def end_stale(self) -> None:
        """End waiting frames that are too old."""
        now = time.perf_counter()
        for entry in [entry for entry in self.waiting if now > entry.stale_s]:
            self.waiting.remove(entry)
            age_s, limit_s = now - entry.submitted_s, entry.stale_s - entry.submitted_s
            reason = f"waited {age_s:.3g} s, longer than {limit_s:.3g} s"
            self.end(entry, FrameStatus.STALE, "too old", reason)

    def end_waiting(self, status: FrameStatus, cause: str, reason: str = "") -> int:
        """End all waiting frames. Returns how many there were."""
        count = len(self.waiting)
        while self.waiting:
            self.end(self.waiting.popleft(), status, cause, reason)
        return count

    def give_up(self, timeout_s: float) -> None:
        """End the frames for which close could not wait."""
        self.waiting.clear()
        for entry in list(self.open.values()):
            if entry.taken_s is None:
                self.end(entry, FrameStatus.DROPPED, "the session was closed")
            else:
                reason = f"its lane had no result {timeout_s:.3g} s after close"
                self.end(entry, FrameStatus.FAILED, "a lane hangs", reason, keep_buffer=True)
                self.problem("a lane hangs")

    def end(
        self,
        entry: InFlight,
        status: FrameStatus,
        cause: str = "",
        reason: str = "",
        *,
        result: FieldResult | None = None,
        keep_buffer: bool = False,
        notify: bool = True,
    ) -> Ended:
        """End a frame, the only way to do so; the caller has taken it from `waiting`.

        keep_buffer: a lane, or the result, still reads the frame's buffer.
        notify: whether readers or the callback are notified.
        """
        now = time.perf_counter()
        begun_s = now if entry.taken_s is None else entry.taken_s
        if status is FrameStatus.FAILED and result is None:
            result = FieldResult(
                slide=entry.slide, field=entry.field, path=entry.path, error=reason or cause
            )
        ended = Ended(
            number=entry.number,
            status=status,
            slide=entry.slide,
            field=entry.field,
            position_um=entry.position_um,
            cause=cause,
            reason=reason or cause,
            result=result,
            waited_s=begun_s - entry.submitted_s,
            latency_s=now - entry.submitted_s,
            late=status is FrameStatus.DONE and now > entry.stale_s,
        )
        entry.ended = True
        del self.open[entry.number]
        self.ledger.end(ended, running=entry.taken_s is not None)
        if notify:
            self.ledger.unread += self.outbox.put(ended)
        if entry.has_place:
            self._places -= 1
        if entry.pooled and isinstance(entry.raw, np.ndarray) and not keep_buffer:
            self.pool.give_back(entry.raw)
        entry.raw = None
        self.on_end()
        self.notify()
        return ended

    def take(self) -> Ended | None:
        """Return the next outcome that can be read now."""
        if not len(self.outbox):
            return None
        ended = self.outbox.take()
        self.notify()  # there may be room again
        return ended

    def notify(self) -> None:
        """Wake all that wait for a change, in threads and in event loops."""
        self.changed.notify_all()
        for waker in list(self.wakers):
            loop, event = waker
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # that loop is closed
                self.wakers.discard(waker)

    def wait_until(self, until_s: float, condition: Callable[[], bool]) -> bool:
        """Wait for a change that makes the condition true; False at timeout. until_s may be
        infinite.
        """
        while not condition():
            left_s = until_s - time.perf_counter()
            if left_s <= 0:
                return False
            self.changed.wait(None if math.isinf(left_s) else min(left_s, threading.TIMEOUT_MAX))
        return True

    def problem(self, text: str) -> None:
        """Note a problem that is not a frame's outcome; the first of its kind is logged."""
        if self.ledger.problem(text):
            _LOG.warning("%s", text)
