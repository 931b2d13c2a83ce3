"""The engine: a pack on one or several devices, its lanes, and the order of results."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rbc_engine.closing import Closing
from rbc_engine.devices.base import BuildWatch
from rbc_engine.devices.choose import DeviceChoice, open_devices
from rbc_engine.errors import DeviceError, DeviceMemoryError, ImageError, RbcError, UsageError
from rbc_engine.lanes.batching import batches, outcome
from rbc_engine.lanes.lane import Analyze, Lane
from rbc_engine.lanes.pool import DeviceLanes, LanePool
from rbc_engine.lanes.prove import check_golden
from rbc_engine.lanes.stages.call import Caller
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.meter import Meter
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.session.options import OnEnded, SessionOptions
from rbc_engine.session.pixels import PixelFormat
from rbc_engine.session.session import Session
from rbc_engine.stats.drift import Drift
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.results import FieldResult

__all__ = ["Engine"]

Result = TypeVar("Result")

# Of a GPU's memory that is free: what lanes may take of it.
_MEMORY_SHARE = 0.8
# How long on_every_lane waits before it looks whether a lane was lost.
_LANE_LOST_S = 0.2


class Engine(Closing):
    """Detects and classifies the red cells of frames.

        with Engine.open("chula12") as engine:
            result = engine.analyze(image)

    Methods may be called from several threads. Close it, or use it in a `with` block.
    """

    def __init__(
        self,
        pack: Pack,
        *choices: DeviceChoice,
        estimate_scale: bool = False,
        field_prior: bool = True,
    ) -> None:
        """See `Engine.open`, which most callers want. Takes over the devices."""
        self.pack = pack
        self._estimate_scale = estimate_scale
        self.field_prior = FieldPrior.of(pack.manifest.classifier) if field_prior else None
        self.choices = choices
        self.choice = choices[0]
        self.meter = Meter()
        self._notes: list[str] = []
        caller = Caller(pack)
        self._lanes = LanePool(
            [
                DeviceLanes(
                    choice.device.name,
                    choice.device_id,
                    [self._lane(choice, caller) for _ in range(choice.lanes)],
                )
                for choice in choices
            ],
            say=self._notes.append,
        )
        self._workers = ThreadPoolExecutor(len(self._lanes), thread_name_prefix="rbc-lane")
        self._closed = False
        self._closing = threading.Lock()
        self._taking_all = threading.Lock()
        self._preparing: threading.Thread | None = None
        if self.choice.device_id is None:
            # While the caller reads the first frames and a lane compiles network A for them: it holds no lane.
            self._preparing = threading.Thread(
                target=self._prepare, args=(caller,), name="rbc-prepare"
            )
            self._preparing.start()

    @classmethod
    def open(
        cls,
        pack: str | Path = "chula12",
        *,
        device: str = "auto",
        precision: str = "auto",
        lanes: int | None = None,
        estimate_scale: bool = True,
        field_prior: bool = True,
        watch: BuildWatch | None = None,
    ) -> Engine:
        """Opens a pack, by the name of a shipped one or by its folder, on a device.

        device: 'auto', 'cpu', 'cuda' (the first GPU), 'cuda:N', 'cuda:N,M' or 'cuda:all'. The networks of a pack are
            compiled for a GPU at its first use there, which takes minutes, and kept; then, and at every later
            opening, the pack's golden inputs are run on it.
        precision: one that the device offers, or 'auto' for the fastest of them that the pack's calibration accepts.
        lanes: batches in flight on each device; None for what suits it.
        estimate_scale: whether a frame that comes without its µm per pixel, and whose cells have a size that no blood
            has at the scale it is taken to have, is detected again at the scale that they tell. Its result says so.
        field_prior: whether the cells of a frame correct each other's probabilities, if the pack says how; else each
            region is judged by itself.
        watch: is told of compilations.

        Raises PackError for a damaged pack, DeviceError for a device that is not here or gives wrong answers,
        UsageError for a wrong name.
        """
        if lanes is not None and lanes < 1:
            raise UsageError(f"lanes must be at least 1 (got {lanes})")
        opened = Pack.open(find_pack(pack))
        choices = open_devices(
            device,
            precision=precision,
            lanes=lanes,
            calibration=opened.calibration,
            cache_name=opened.name,
            watch=watch,
        )
        engine = cls(opened, *choices, estimate_scale=estimate_scale, field_prior=field_prior)
        try:
            for choice in choices:
                if choice.device_id is not None:
                    # No lane has taken any memory yet.
                    engine._prove(choice)
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def lanes(self) -> int:
        """Batches in flight, over all devices: as many as their memory holds."""
        return len(self._lanes)

    @property
    def notes(self) -> list[str]:
        """Why no faster device or precision was taken, and what had to be given up since."""
        return [*(note for choice in self.choices for note in choice.notes), *self._notes]

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

        An error in a lane is raised here. Where a device fails, its batches are run on those that are left; when the
        last one fails, every frame that was taken from the source has its result, if need be a failed one, before
        the DeviceError is raised. Ending the iteration early waits for the batches in flight.
        """
        in_flight: deque[tuple[list[Decoded], Future[list[FieldResult]]]] = deque()
        try:
            for batch in batches(source, self.choice.lane_frames):
                for decoded in batch:
                    self.meter.add("decode", decoded.seconds)
                in_flight.append((batch, self._submit(batch, keep_frames=keep_frames)))
                # One batch a lane, and one more each to take up the moment it is free.
                while len(in_flight) >= max(1, 2 * self.lanes):
                    yield from in_flight[0][1].result()
                    in_flight.popleft()
            while in_flight:
                yield from in_flight[0][1].result()
                in_flight.popleft()
        except DeviceError as error:
            # No device is left. What was taken from the source gets its result all the same.
            while in_flight:
                yield from outcome(*in_flight.popleft(), error)
            raise
        finally:
            for _, future in in_flight:
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
        """Calls a function, in a worker, when a lane is free, with what analyses batches on lanes.

        Cancelled if the engine is closed first.
        """
        if self._closed:
            raise RbcError("the engine is closed; open a new one")
        try:
            return self._workers.submit(work, self._work)
        except RuntimeError as error:  # closed since
            raise RbcError("the engine is closed; open a new one") from error

    def on_every_lane(self, work: Callable[[Lane], object]) -> None:
        """Calls a function with each lane, here, as soon as it is free. Nothing else has a lane when it returns."""
        held: list[Lane] = []
        with self._taking_all:  # two at a time would each wait for what the other holds
            if self._closed:
                raise RbcError("the engine is closed; open a new one")
            try:
                # A device may be lost meanwhile, and its lanes with it.
                while len(held) < self.lanes:
                    lane = self._lanes.take(timeout_s=_LANE_LOST_S)
                    if lane is not None:
                        held.append(lane)
                        work(lane)
            finally:
                for lane in held:
                    self._lanes.give(lane)

    def check_golden(self) -> list[Drift]:
        """Runs the pack's golden inputs, one by one and as full batches, and compares the answers.

        Returns what differs on each device, within what its precision allows. Raises DeviceError if more does.
        """
        return [self._check_golden(choice) for choice in self.choices]

    def close(self) -> None:
        """Waits for the batches in flight and frees the devices. May be called again."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        if self._preparing is not None:
            self._preparing.join()
        with self._taking_all:
            self._workers.shutdown(wait=True, cancel_futures=True)
            self._lanes.close()
        for choice in self.choices:
            # A device that is lost refuses this too; that it was lost has been said already.
            with suppress(DeviceError):
                choice.device.enter()
                choice.device.close()

    def __repr__(self) -> str:
        devices = ", ".join(repr(choice.device) for choice in self.choices)
        return f"Engine({self.pack!r}, {devices}, {self.lanes} lanes)"

    def _lane(self, choice: DeviceChoice, caller: Caller) -> Lane:
        return Lane(
            choice.device,
            self.pack,
            caller,
            batch_frames=choice.batch_frames,
            batch_patches=choice.batch_patches,
            threads=choice.threads,
            meter=self.meter,
            estimate_scale=self._estimate_scale,
            field_prior=self.field_prior,
        )

    def _submit(self, batch: Sequence[Decoded], *, keep_frames: bool) -> Future[list[FieldResult]]:
        return self.on_lane(lambda analyze: analyze(batch, keep_frames=keep_frames))

    def _prepare(self, caller: Caller) -> None:
        """Compiles what does not depend on the frames; the host keeps it, and its lanes find it there."""
        # An error here comes up again where a lane needs what is missing.
        with suppress(Exception):
            self._lane(self.choice, caller).prepare()

    def _work(
        self,
        batch: Sequence[Decoded],
        *,
        keep_frames: bool = False,
        device_id: int | None = None,
    ) -> list[FieldResult]:
        """The results of a batch, on the GPU whose memory its frames are in, if they are in one's."""
        if device_id is None:
            held = {decoded.frame.device_id for decoded in batch if decoded.frame is not None}
            device_id = next((number for number in held if number is not None), None)
        return self._on_lane(lambda lane: lane.analyze(batch, keep_frames=keep_frames), device_id)

    def _on_lane(self, work: Callable[[Lane], Result], device_id: int | None) -> Result:
        """Does it on a free lane, and on another one if that fails. Raises DeviceError if none is left."""
        while True:
            lane = self._lanes.take(device_id)
            try:
                done = work(lane)
            except DeviceMemoryError as error:
                self._lanes.shrink(lane, error)
            except DeviceError as error:
                self._lanes.lose(lane, error)
            except BaseException:
                self._lanes.give(lane)
                raise
            else:
                self._lanes.give(lane)
                return done

    def _check_golden(self, choice: DeviceChoice) -> Drift:
        return check_golden(
            self.pack, choice, lambda batch: self._work(batch, device_id=choice.device_id)
        )

    def _prove(self, choice: DeviceChoice) -> None:
        """Golden inputs through a GPU: they compile what is not compiled yet, warm it up, show what memory a lane
        takes, and must come out right."""
        device = choice.device
        device.enter()
        before = device.free_bytes() or 0
        self._on_lane(Lane.prepare, choice.device_id)
        self._check_golden(choice)
        device.enter()
        free = device.free_bytes() or 0
        taken = max(before - free, 1)
        lane = self._lanes.take(choice.device_id)
        most = 1 + int(_MEMORY_SHARE * free / taken)
        self._lanes.limit(
            lane,
            most,
            f"the first lane took {taken >> 20} MiB of GPU memory, and {free >> 20} MiB are left",
        )
        self._lanes.give(lane)
