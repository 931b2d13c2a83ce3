"""Take a session's turns on the lanes of its engine: ask for one when frames wait, and analyse in
it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np

from rbc_engine.errors import RbcError
from rbc_engine.lanes.base import Analyze
from rbc_engine.lanes.lanes import Lanes
from rbc_engine.meter import Meter
from rbc_engine.session.admission import Flow, InFlight
from rbc_engine.session.pixels import to_rgb
from rbc_engine.types.ends import FrameStatus
from rbc_engine.types.frames import Decoded, FieldRef, Frame

__all__ = ["Turns"]


class Turns:
    """Ask for as many lanes as there are waiting frames, and for no more than exist.

    A turn takes its frames when it begins, not when it is asked for: until then they can still be
    dropped.

    max_batch: frames of one turn.
    """

    def __init__(self, lanes: Lanes, meter: Meter, flow: Flow, *, max_batch: int) -> None:
        self._lanes = lanes
        self._meter = meter
        self._flow = flow
        self._max_batch = max_batch
        self._most = len(lanes)
        self._asked = 0
        """Turns that have not ended."""
        self._queued = 0
        """Those of them that have not begun."""
        self._started = False

    def start(self) -> None:
        """Start asking for turns."""
        self._started = True
        self.ask()

    def ask(self) -> None:
        """Ask for lanes, if frames wait for which none was requested. Not to be called under the
        lock of the flow.
        """
        with self._flow.changed:
            if not self._started:
                return
            turns = min(self._most - self._asked, len(self._flow.waiting) - self._queued)
            turns = max(turns, 0)
            self._asked += turns
            self._queued += turns
        for number in range(turns):
            try:
                future = self._lanes.on_lane(self._turn)
            except RbcError as error:
                self._lose(turns - number, str(error))
                return
            future.add_done_callback(self._on_over)

    def _on_over(self, future: Future[None]) -> None:
        if future.cancelled():
            self._lose(1, "the engine was closed; close the session first")

    def _lose(self, turns: int, reason: str) -> None:
        """Fail the waiting frames: the engine is closed, and no lane will come."""
        with self._flow.changed:
            self._asked -= turns
            self._queued -= turns
            self._flow.end_waiting(FrameStatus.FAILED, "the engine is closed", reason)

    def _turn(self, analyze: Analyze) -> None:
        with self._flow.changed:
            batch = self._flow.take_batch(turns=self._queued, most=self._max_batch)
            self._queued -= 1
        try:
            self._analyze(analyze, batch)
        finally:
            with self._flow.changed:
                for entry in batch:
                    if not entry.ended:
                        self._flow.end(entry, FrameStatus.FAILED, "a lane failed", "its lane ended")
                self._asked -= 1
            self.ask()

    def _analyze(self, analyze: Analyze, batch: list[InFlight]) -> None:
        decoded: list[Decoded] = []
        usable: list[InFlight] = []
        for entry in batch:
            try:
                decoded.append(self._decode(entry))
                usable.append(entry)
            except Exception as error:
                with self._flow.changed:
                    self._end(entry, FrameStatus.FAILED, "unusable frame", str(error))
        if usable:
            self._run(analyze, usable, decoded)

    def _decode(self, entry: InFlight) -> Decoded:
        options = self._flow.options
        started = time.perf_counter()
        raw = entry.raw
        if raw is None:  # close gave up on it
            raise RbcError("the session was closed")
        frame = Frame(
            pixels=raw if not isinstance(raw, np.ndarray) else to_rgb(raw, entry.pixels),
            slide=entry.slide,
            field=entry.field,
            pixel_um=options.pixel_um,
        )
        seconds = time.perf_counter() - started
        self._meter.add("decode", seconds)
        ref = FieldRef(slide=entry.slide, field=entry.field, path=Path(entry.path))
        return Decoded(ref=ref, frame=frame, seconds=seconds)

    def _run(self, analyze: Analyze, entries: list[InFlight], decoded: list[Decoded]) -> None:
        try:
            results = analyze(decoded, keep_frames=self._flow.options.keep_frames)
        except (
            BaseException
        ) as error:  # whatever it is, it belongs to one frame, and the worker continues
            if len(entries) > 1:
                for entry, one in zip(entries, decoded, strict=True):
                    self._run(analyze, [entry], [one])
                return
            reason = f"{type(error).__name__}: {error}"
            with self._flow.changed:
                self._end(entries[0], FrameStatus.FAILED, "a lane failed", reason)
                self._flow.problem(f"a lane failed: {type(error).__name__}")
            return
        with self._flow.changed:
            for entry, result in zip(entries, results, strict=True):
                if entry.ended:
                    continue
                result = replace(result, path=entry.path)
                if result.error is None:
                    kept = result.frame is not None
                    self._flow.end(entry, FrameStatus.DONE, result=result, keep_buffer=kept)
                else:
                    cause, reason = "unusable frame", result.error
                    self._flow.end(entry, FrameStatus.FAILED, cause, reason, result=result)

    def _end(self, entry: InFlight, status: FrameStatus, cause: str, reason: str) -> None:
        if not entry.ended:  # else close gave up on it
            self._flow.end(entry, status, cause, reason)
