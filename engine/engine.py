"""The engine: a pack on a device, its lanes, and the order of results."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rbc_engine.closing import Closing
from rbc_engine.devices.select import DeviceChoice, open_device
from rbc_engine.errors import ImageError, RbcError, UsageError
from rbc_engine.lane import Analyze, Lane
from rbc_engine.meter import Meter
from rbc_engine.pack import Pack, find_pack
from rbc_engine.pixels import PixelFormat
from rbc_engine.session import Session
from rbc_engine.session_options import OnEnded, SessionOptions
from rbc_engine.stages.call import Caller
from rbc_engine.types import Decoded, FieldRef, FieldResult, Frame, UInt8

__all__ = ["Engine"]

Result = TypeVar("Result")


class Engine(Closing):
    """Detects and classifies the red cells of frames.

        with Engine.open("chula12") as engine:
            result = engine.analyze(image)

    Methods may be called from several threads. Close it, or use it in a `with` block.
    """

    def __init__(self, pack: Pack, choice: DeviceChoice) -> None:
        """See `Engine.open`, which most callers want. Takes over the device."""
        self.pack = pack
        self.choice = choice
        self.meter = Meter()
        caller = Caller(pack)
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for _ in range(choice.lanes):
            self._free.put(
                Lane(
                    choice.device,
                    pack,
                    caller,
                    batch_frames=choice.batch_frames,
                    batch_patches=choice.batch_patches,
                    threads=choice.threads,
                    meter=self.meter,
                )
            )
        self._workers = ThreadPoolExecutor(choice.lanes, thread_name_prefix="rbc-lane")
        self._closed = False
        self._taking_all = threading.Lock()
        # While the caller finds and reads the first frames. An error here comes up again at their first use.
        self._workers.submit(self._prepare)

    @classmethod
    def open(
        cls,
        pack: str | Path = "chula12",
        *,
        device: str = "auto",
        precision: str = "auto",
        lanes: int | None = None,
    ) -> Engine:
        """Opens a pack, by the name of a shipped one or by its folder, on a device.

        device: 'auto', 'cpu', 'cuda' or 'cuda:N'. precision: 'auto' or one that the device offers.
        lanes: batches in flight; None for what suits the device.

        Raises PackError for a damaged pack, DeviceError for a device that is not here, UsageError for a wrong name.
        """
        if lanes is not None and lanes < 1:
            raise UsageError(f"lanes must be at least 1 (got {lanes})")
        opened = Pack.open(find_pack(pack))
        return cls(opened, open_device(device, precision=precision, lanes=lanes))

    @property
    def lanes(self) -> int:
        """Batches in flight."""
        return self.choice.lanes

    def analyze(
        self, image: UInt8 | Frame, *, pixel_um: float | None = None, field: str = ""
    ) -> FieldResult:
        """One image, now.

        image: uint8 [H, W, 3] RGB. pixel_um: width of a pixel in µm, if known.

        Raises ImageError if the image cannot be used.
        """
        frame = (
            image
            if isinstance(image, Frame)
            else Frame(pixels=image, field=field, pixel_um=pixel_um)
        )
        ref = FieldRef(slide=frame.slide, field=frame.field, path=Path())
        result = self._submit([Decoded(ref=ref, frame=frame)], keep_frames=False).result()[0]
        if result.error is not None:
            raise ImageError(result.error)
        return result

    def run(self, source: Iterable[Decoded], *, keep_frames: bool = False) -> Iterator[FieldResult]:
        """Results of everything that a source yields, in its order; at most a few batches are in flight.

        keep_frames: results carry their frame.

        An error in a lane is raised here. Ending the iteration early waits for the batches in flight.
        """
        in_flight: deque[Future[list[FieldResult]]] = deque()
        # One batch a lane, and one more each to take up the moment it is free.
        limit = 2 * self.choice.lanes
        try:
            for batch in _batches(source, self.choice.lane_frames):
                for decoded in batch:
                    self.meter.add("decode", decoded.seconds)
                in_flight.append(self._submit(batch, keep_frames=keep_frames))
                if len(in_flight) >= limit:
                    yield from in_flight.popleft().result()
            while in_flight:
                yield from in_flight.popleft().result()
        finally:
            for future in in_flight:
                future.cancel()

    def session(
        self,
        *,
        on_full: str = "block",
        max_in_flight: int | None = None,
        max_batch: int | None = None,
        submit_timeout_s: float = 10.0,
        max_age_s: float | None = None,
        order: str = "ready",
        on_ended: OnEnded | None = None,
        max_unread: int = 1000,
        callback_timeout_s: float = 10.0,
        slide: str = "live",
        pixel_um: float | None = None,
        pixels: PixelFormat | None = None,
        keep_frames: bool = False,
        warm_up_hw: tuple[int, int] | None = None,
    ) -> Session:
        """A loop that takes frames as they come, from any thread; see Session. Its `with` block waits until it is warm.

        on_full: what happens to a frame for which there is no room: 'block' waits for room, submit_timeout_s at
            most, then rejects it; 'drop_oldest' drops the frame that has waited longest; 'drop_newest' drops it;
            'reject' rejects it.
        max_in_flight: frames that wait or are in lanes; by default twice what the lanes take.
        max_batch: frames that a lane takes at once, when that many wait; by default what makes the device faster.
        max_age_s: a frame that has waited longer is not begun, and ends stale.
        order: 'ready', or 'submitted': an end waits for those of the frames before.
        on_ended: called with the Ended of every frame, one at a time, in a thread of its own; without it they
            are read from the session. max_unread: how many may wait for that. Under 'block' no frame is taken when
            there are more; else the oldest are thrown away, and counted.
        callback_timeout_s: a call that takes longer is reported in Session.problems.
        slide, pixel_um (width of a pixel in µm), pixels: of all frames. keep_frames: results carry their frame.
        warm_up_hw: height and width of the coming frames, if they are not 4:3.

        Several sessions of one engine take turns. Close a session before its engine: otherwise what waits fails.
        """
        if self._closed:
            raise RbcError("the engine is closed; open a new one")
        options = SessionOptions(
            on_full=on_full,
            max_in_flight=max_in_flight,
            max_batch=max_batch,
            submit_timeout_s=submit_timeout_s,
            max_age_s=max_age_s,
            order=order,
            max_unread=max_unread,
            callback_timeout_s=callback_timeout_s,
            slide=slide,
            pixel_um=pixel_um,
            pixels=pixels or PixelFormat(),
            keep_frames=keep_frames,
            warm_up_hw=warm_up_hw,
        )
        return Session(self, options, on_ended)

    def on_lane(self, work: Callable[[Analyze], Result]) -> Future[Result]:
        """Calls a function, in a worker, when a lane is free, with what analyses batches on that lane.

        Cancelled if the engine is closed first.
        """
        if self._closed:
            raise RbcError("the engine is closed; open a new one")
        try:
            return self._workers.submit(self._work, lambda lane: work(lane.analyze))
        except RuntimeError as error:  # closed since
            raise RbcError("the engine is closed; open a new one") from error

    def on_every_lane(self, work: Callable[[Lane], object]) -> None:
        """Calls a function with each lane, here, as soon as it is free. Nothing else has a lane when it returns."""
        held: list[Lane] = []
        with self._taking_all:  # two at a time would each wait for what the other holds
            if self._closed:
                raise RbcError("the engine is closed; open a new one")
            try:
                for _ in range(self.lanes):
                    held.append(self._free.get())
                    work(held[-1])
            finally:
                for lane in held:
                    self._free.put(lane)

    def close(self) -> None:
        """Waits for the batches in flight and frees the device. May be called again."""
        if not self._closed:
            self._closed = True
            with self._taking_all:
                self._workers.shutdown(wait=True, cancel_futures=True)
                self.choice.device.close()

    def __repr__(self) -> str:
        return f"Engine({self.pack!r}, {self.choice.device!r}, {self.choice.lanes} lanes)"

    def _submit(self, batch: Sequence[Decoded], *, keep_frames: bool) -> Future[list[FieldResult]]:
        return self.on_lane(lambda analyze: analyze(batch, keep_frames=keep_frames))

    def _prepare(self) -> None:
        self._work(lambda lane: lane.prepare())

    def _work(self, work: Callable[[Lane], Result]) -> Result:
        lane = self._free.get()
        try:
            return work(lane)
        finally:
            self._free.put(lane)


def _batches(items: Iterable[Decoded], size: int) -> Iterator[list[Decoded]]:
    batch: list[Decoded] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
