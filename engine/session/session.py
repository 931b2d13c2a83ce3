"""Serve a microscope: frames in from any thread, outcomes out in time, and every frame accounted
for.

Frames wait in the session, not in the engine: a free lane takes what waits at that moment. So a
frame that is dropped or too old costs no lane any time, frames share a batch only when they wait,
and several sessions of one engine take turns.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.closing import Closing
from rbc_engine.errors import ImageError, UsageError
from rbc_engine.lanes.lanes import Lanes
from rbc_engine.meter import Meter
from rbc_engine.packs.pack import Pack
from rbc_engine.session.admission import Flow, InFlight
from rbc_engine.session.callback import Delivery
from rbc_engine.session.pixels import PixelFormat, as_array, check_raw
from rbc_engine.session.session_options import (
    OnEnded,
    SessionOptions,
    check_position,
    check_seconds,
    needs_position,
)
from rbc_engine.session.turns import Turns
from rbc_engine.session.warm_up import warm_up
from rbc_engine.types.ends import Ended, FrameCounts, FrameStatus, Latency, PositionUm, Ticket
from rbc_engine.types.frames import DevicePixels

__all__ = ["Session"]

_LAST_CALLS_S = 0.5
"""What close leaves the callback for the last outcomes, even if the lanes took all its time."""


class Session(Closing):
    """Take frames and return outcomes; made by Engine.session. Every method may be called from any
    thread.

    A frame has exactly one outcome: done, dropped, rejected, failed or stale; `counts` adds up at
    any moment. One that cannot be used, or breaks a lane, affects no other. Leaving the `with`
    block drains and closes the session; leaving it by an error drops waiting frames.
    """

    def __init__(
        self,
        lanes: Lanes,
        pack: Pack,
        meter: Meter,
        options: SessionOptions,
        on_ended: OnEnded | None,
    ) -> None:
        """Take over the options; callers want `Engine.session`."""
        batch = options.max_batch or lanes.choices[0].batch_frames
        limit = options.max_in_flight or 2 * len(lanes) * batch
        self.options = options
        self.max_in_flight = limit
        # No batch so large that the other lanes starve, or that nothing waits for the next one.
        self.max_batch = max(1, min(batch, limit // (2 * len(lanes))))
        if options.max_unread < limit:
            raise UsageError(
                f"max_unread must be at least max_in_flight, {limit} (got {options.max_unread})"
            )
        self._lanes = lanes
        self._pack = pack
        self._places = [choice.place for choice in lanes.choices]
        self._flow = Flow(options, limit=limit)
        self._changed = self._flow.changed
        self._turns = Turns(lanes, meter, self._flow, max_batch=self.max_batch)
        self._ready = threading.Event()
        self._warm_up_error: BaseException | None = None
        self._delivery = None
        self._needs_position = needs_position(on_ended)
        if on_ended is not None:
            self._delivery = Delivery(self._flow, on_ended)
            self._flow.trouble = self._delivery.trouble
            self._flow.on_end = self._delivery.watch
        # A daemon, so that a program that fails meanwhile can end; close waits for it.
        self._warming = threading.Thread(target=self._warm_up, name="rbc-warm-up", daemon=True)
        self._warming.start()

    # ---- state ----

    @property
    def ready(self) -> bool:
        """Return whether every lane is warm. Frames submitted before wait."""
        return self._ready.is_set()

    def wait_ready(self, *, timeout_s: float | None = None) -> bool:
        """Wait until `ready`; False at timeout. Raises the error of a failed warm-up."""
        if not self._ready.wait(timeout_s):
            return False
        if self._warm_up_error is not None:
            raise self._warm_up_error
        return True

    @property
    def counts(self) -> FrameCounts:
        """Return the counts of one moment; `counts.add_up` is always true."""
        with self._changed:
            return self._flow.ledger.counts

    @property
    def causes(self) -> dict[str, int]:
        """Return how many frames were not done, by 'status: cause'."""
        with self._changed:
            return self._flow.ledger.causes

    @property
    def problems(self) -> dict[str, int]:
        """Return how often each problem not of a frame occurred: callbacks, warm-up, hung lanes."""
        with self._changed:
            return self._flow.ledger.problems

    @property
    def latency(self) -> Latency:
        with self._changed:
            return self._flow.ledger.latency

    @property
    def over(self) -> bool:
        """Return whether no outcome will come any more: no frame is accepted, none is in flight,
        all outcomes were read.
        """
        with self._changed:
            return self._flow.is_over and not len(self._flow.outbox)

    def __repr__(self) -> str:
        counts = self.counts
        state = "open" if self._flow.accepting else "closed"
        return (
            f"Session({state}, {counts.submitted} submitted, {counts.in_flight} in flight, "
            f"{counts.done} done)"
        )

    # ---- frames in ----

    def submit(
        self,
        frame: object,
        *,
        field: str = "",
        slide: str | None = None,
        path: str | Path = "",
        position_um: PositionUm | None = None,
        pixels: PixelFormat | None = None,
        deadline_s: float | None = None,
        copy: bool = True,
        timeout_s: float | None = None,
    ) -> Ticket:
        """Hand over one frame.

        frame: numpy or DLPack in host memory, as the session's PixelFormat says: uint8 or uint16,
            [H, W] or [H, W, C], with any strides. By default it is copied: the array is the
            caller's again when submit returns. With copy=False it is read in place: it must not
            change until the frame's Ended has come, nor after that if the session keeps frames.
            uint8 RGB in the memory of the engine's own GPU (CuPy, PyTorch, Numba) is always read in
            place.
        field: '' for frame-NUMBER; ~2, ~3, … is added to one that the slide has already.
        slide: None for the session's. path: for fields.csv.
        position_um: of the stage, for SlideMonitor. pixels: None for the session's.
        deadline_s: seconds from now until the result is of no use. A frame not started by then is
            stale; one that is done later is `late`.
        timeout_s: the longest to wait for room under on_full='block'; None for the session's
            submit_timeout_s. The other policies never wait.

        An unusable frame fails, a full session ends one frame as on_full says: nothing is raised
        for that, and the Ticket holds the outcome. Raises SessionClosedError after finish or close
        (the frame is counted, as rejected, and has no Ended), UsageError for an argument that is
        not a position or time.
        """
        self._lanes.check_process()
        now = time.perf_counter()
        check_position(position_um, needed=self._needs_position)
        check_seconds("deadline_s", deadline_s)
        check_seconds("timeout_s", timeout_s)
        limits_s = [s for s in (deadline_s, self.options.max_age_s) if s is not None]
        pixels = pixels or self.options.pixels
        raw, unusable = None, ""
        try:
            raw = as_array(frame, places=self._places)
            check_raw(raw, pixels)
        except ImageError as error:
            unusable = str(error)
        entry = InFlight(
            slide=self.options.slide if slide is None else slide,
            field=field,
            path=str(path),
            position_um=position_um,
            pixels=pixels,
            submitted_s=now,
            stale_s=now + min(limits_s, default=math.inf),
        )
        wait_s = self.options.submit_timeout_s if timeout_s is None else timeout_s
        return self._enter(entry, raw, unusable=unusable, until_s=now + wait_s, copy=copy)

    def note_lost(self, count: int, *, cause: str = "lost before it was submitted") -> None:
        """Count frames that a camera made and that were lost before submission, as submitted and
        dropped.

        They have no Ended. cause: a few words, the same for all frames lost in that way.
        """
        if count < 0:
            raise UsageError(f"count must be at least 0 (got {count})")
        with self._changed:
            self._flow.ledger.lose(count, cause)
            self._changed.notify_all()

    def note_failed(
        self, reason: str, *, field: str, slide: str | None = None, path: str | Path = ""
    ) -> Ticket:
        """Count an unreadable frame as failed. Raises SessionClosedError, like submit."""
        entry = InFlight(
            slide=self.options.slide if slide is None else slide,
            field=field,
            path=str(path),
            pixels=self.options.pixels,
            submitted_s=time.perf_counter(),
        )
        return self._enter(entry, None, unusable=reason, until_s=entry.submitted_s, copy=False)

    def note_problem(self, text: str) -> None:
        """Add to `problems` what is no frame's outcome. text: the same each time it happens."""
        with self._changed:
            self._flow.problem(text)

    # ---- outcomes out ----

    def results(self) -> Iterator[Ended]:
        """Yield the outcome of every frame, until the session is finished or closed and all were
        read.

        Each outcome goes to one reader. Not for sessions with a callback.
        """
        while (ended := self.read()) is not None:
            yield ended

    def read(self, *, timeout_s: float | None = None) -> Ended | None:
        """Return the next outcome. None if none came within timeout_s, or none will come any more
        (see `over`).
        """
        self._check_no_callback("read")
        with self._changed:
            self._changed.wait_for(lambda: len(self._flow.outbox) or self._flow.is_over, timeout_s)
            return self._flow.take()

    def poll(self) -> list[Ended]:
        """Return the outcomes that can be read now, without waiting."""
        self._check_no_callback("poll")
        ended = []
        with self._changed:
            while (one := self._flow.take()) is not None:
                ended.append(one)
        return ended

    async def async_results(self) -> AsyncIterator[Ended]:
        """Yield outcomes like `results`, for asyncio; blocks no event loop. Submit from a thread if
        on_full is 'block'.
        """
        self._check_no_callback("async_results")
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._changed:
            self._flow.wakers.add((loop, event))
        try:
            while True:
                event.clear()
                with self._changed:
                    ended, over = self._flow.take(), self._flow.is_over
                if ended is not None:
                    yield ended
                elif over:
                    return
                else:
                    await event.wait()
        finally:
            with self._changed:
                self._flow.wakers.discard((loop, event))

    # ---- ending ----

    def cancel(self) -> int:
        """Drop every waiting frame; those in a lane continue. Returns how many were dropped."""
        with self._changed:
            self._flow.cancels += 1
            return self._flow.end_waiting(FrameStatus.DROPPED, "cancelled")

    def finish(self) -> None:
        """Accept no more frames; those in flight continue. `results` ends after the last."""
        with self._changed:
            self._flow.accepting = False
            self._flow.notify()

    def drain(self, *, timeout_s: float | None = None) -> bool:
        """Wait until every frame submitted before has its outcome, and its callback, if any, has
        returned.

        False at timeout. Raises UsageError from within the callback.
        """
        if self._delivery is not None and self._delivery.is_here:
            raise UsageError("drain() within the callback would wait for itself; call it elsewhere")
        until_s = time.perf_counter() + (math.inf if timeout_s is None else timeout_s)
        with self._changed:
            mark = self._flow.ledger.counts.submitted
            if not self._flow.wait_until(
                until_s, lambda: min(self._flow.open, default=mark) >= mark
            ):
                return False
            if self._delivery is None:
                return True
            delivered = self._delivery.mark()
            return self._flow.wait_until(until_s, delivered)

    def close(self, *, drain: bool = True, timeout_s: float = 30.0) -> None:
        """Accept no more frames, end those in flight, stop the session's thread. May be called
        again.

        drain: analyse waiting frames; else drop them. A frame not done after timeout_s ends anyway,
        dropped or failed; a callback that has not returned by then is reported in `problems` and
        its thread left behind, as no thread can be stopped from outside. Unread outcomes can still
        be read.
        """
        until_s = time.perf_counter() + timeout_s
        self.finish()
        if not drain:
            self.cancel()
        with self._changed:
            if not self._flow.wait_until(until_s, lambda: not self._flow.open):
                self._flow.give_up(timeout_s)
        self._warming.join(max(0.0, until_s - time.perf_counter()))
        if self._delivery is not None:
            self._delivery.close(until_s=max(until_s, time.perf_counter() + _LAST_CALLS_S))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(drain=kind is None)

    def __enter__(self) -> Session:
        """Wait until the session is ready. Raises the error of a failed warm-up."""
        try:
            self.wait_ready()
        except BaseException:
            self.close(drain=False)
            raise
        return self

    # ---- inside ----

    def _enter(
        self,
        entry: InFlight,
        raw: npt.NDArray[Any] | DevicePixels | None,
        *,
        unusable: str,
        until_s: float,
        copy: bool,
    ) -> Ticket:
        ended = self._flow.enter(entry, unusable=unusable, until_s=until_s)
        if ended is None and raw is not None:
            ended = self._flow.admit(entry, raw, copy=copy and isinstance(raw, np.ndarray))
            self._turns.ask()
        return Ticket(number=entry.number, ended=ended)

    def _check_no_callback(self, name: str) -> None:
        if self._delivery is not None:
            raise UsageError(f"{name}() is not for a session with a callback; omit on_ended")

    def _warm_up(self) -> None:
        hw = self.options.warm_up_hw
        try:
            warm_up(
                self._lanes,
                self._pack,
                hw=hw,
                pixel_um=self.options.pixel_um,
                batch=self.max_batch,
            )
        except BaseException as error:
            self._warm_up_error = error
            with self._changed:
                self._flow.problem(f"the warm-up failed: {type(error).__name__}: {error}")
        self._ready.set()
        self._turns.start()
