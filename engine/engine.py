"""Run a pack on one or several devices, with its lanes, and keep results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import NoReturn, TypeVar

from rbc_engine.closing import Closing
from rbc_engine.devices.base import BuildWatch, DeviceChoice
from rbc_engine.devices.choose import open_devices
from rbc_engine.errors import DeviceError, ImageError, RbcError, UsageError
from rbc_engine.lanes.base import Analyze
from rbc_engine.lanes.batching import batches, outcome
from rbc_engine.lanes.lanes import Lanes, lane_maker
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.meter import Meter
from rbc_engine.naming import arguments_named
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.session.pixels import PixelFormat, usable_rgb
from rbc_engine.session.session import Session
from rbc_engine.session.session_options import PIXEL_UM, OnEnded, SessionOptions, check_number
from rbc_engine.stats.drift import Drift
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.results import FieldResult

__all__ = ["Engine"]

Result = TypeVar("Result")


class Engine(Closing):
    """Detect and classify the red cells of frames.

        with Engine.open("chula12") as engine:
            result = engine.analyze(image)

    Methods may be called from several threads. Close it, or use it in a `with` block.
    """

    def __init__(
        self,
        pack: Pack,
        lanes: Lanes,
        meter: Meter,
        *,
        estimate_scale: bool = False,
        field_prior: FieldPrior | None = None,
    ) -> None:
        """Take over the lanes; `Engine.open` is what most callers want.

        meter, estimate_scale, field_prior: with which the lanes were made.
        """
        self.pack = pack
        self.meter = meter
        self.estimate_scale = estimate_scale
        self.field_prior = field_prior
        self.choices = lanes.choices
        self.choice = lanes.choices[0]
        self._lanes = lanes

    @classmethod
    def on(
        cls,
        pack: Pack,
        *choices: DeviceChoice,
        estimate_scale: bool = False,
        field_prior: bool = True,
    ) -> Engine:
        """Make the engine of a pack on open devices and take them over, without verifying them."""
        meter = Meter()
        prior = FieldPrior.of(pack.manifest.classifier) if field_prior else None
        make = lane_maker(pack, meter=meter, estimate_scale=estimate_scale, field_prior=prior)
        return cls(
            pack, Lanes(choices, make), meter, estimate_scale=estimate_scale, field_prior=prior
        )

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
        """Open a pack, by the name of a shipped one or by its folder, on a device.

        device: 'auto', 'cpu', 'cuda' (the first GPU), 'cuda:N', 'cuda:N,M' or 'cuda:all'. The
            networks of a pack are compiled for a GPU at their first use there, which takes minutes,
            and stored; then, and at every later opening, the pack's golden inputs are run on it.
        precision: one that the device offers, or 'auto' for the fastest that the pack's calibration
        accepts.
        lanes: batches in flight on each device; None for what suits it.
        estimate_scale: whether a frame without µm per pixel, whose cells have an implausible size
            at the assumed scale, is detected again at the scale estimated from them. Its result
            says so.
        field_prior: whether to correct probabilities for the mix of types in each frame, if the
        pack says how.
        watch: is notified of compilations.

        Raises PackError for a damaged pack, DeviceError for a device that is not available or gives
        wrong results, UsageError for a wrong name.
        """
        if lanes is not None and lanes < 1:
            raise UsageError(f"lanes must be at least 1 (got {lanes})")
        with arguments_named():
            opened = Pack.open(find_pack(pack))
            choices = open_devices(
                device,
                precision=precision,
                lanes=lanes,
                calibration=opened.calibration,
                cache_name=opened.name,
                watch=watch,
            )
        engine = cls.on(opened, *choices, estimate_scale=estimate_scale, field_prior=field_prior)
        try:
            engine._lanes.prove(opened)
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def lanes(self) -> int:
        """Return the number of batches in flight, over all devices: as many as their memory
        holds.
        """
        return len(self._lanes)

    @property
    def notes(self) -> list[str]:
        """Return why no faster device or precision was chosen, and what had to be given up
        since.
        """
        return self._lanes.notes

    @property
    def doubts(self) -> list[str]:
        """Return what to know of the results: a precision that the pack has not accepted."""
        return [doubt for choice in self.choices for doubt in choice.doubts]

    def analyze(
        self,
        image: object,
        *,
        pixel_um: float | None = None,
        field: str = "",
        pixels: PixelFormat | None = None,
    ) -> FieldResult:
        """Analyse one image now.

        image: what a session takes: numpy or DLPack, uint8 RGB [H, W, 3], or as `pixels` says; or
        a Frame. pixel_um: width of a pixel in µm, if known.

        Raises ImageError if the image cannot be used, UsageError for an impossible pixel_um,
        RbcError if the engine is closed or was opened by another process.
        """
        check_number("pixel_um", pixel_um, *PIXEL_UM, unit=" µm")
        if isinstance(image, Frame):
            frame = image
        else:
            places = [choice.place for choice in self.choices]
            rgb = usable_rgb(image, pixels or PixelFormat(), places=places)
            frame = Frame(pixels=rgb, field=field, pixel_um=pixel_um)
        ref = FieldRef(slide=frame.slide, field=frame.field, path=Path())
        future = self._submit([Decoded(ref=ref, frame=frame)], keep_frames=False)
        result = self._results(future)[0]
        if result.error is not None:
            raise ImageError(result.error)
        return result

    def run(self, source: Iterable[Decoded], *, keep_frames: bool = False) -> Iterator[FieldResult]:
        """Yield the results of everything from a source, in its order; at most a few batches are in
        flight.

        keep_frames: results carry their frame.

        An error in a lane is raised here. If a device fails, its batches are run on those that are
        left; if the last one fails, every frame that was taken from the source has its result,
        possibly a failed one, before the DeviceError is raised. Ending the iteration early waits
        for the batches in flight.
        """
        in_flight: deque[tuple[list[Decoded], Future[list[FieldResult]]]] = deque()
        try:
            for batch in batches(source, self.choice.lane_frames):
                for decoded in batch:
                    self.meter.add("decode", decoded.seconds)
                in_flight.append((batch, self._submit(batch, keep_frames=keep_frames)))
                # One batch a lane, and one more each to take up the moment it is free.
                while len(in_flight) >= max(1, 2 * self.lanes):
                    yield from self._results(in_flight[0][1])
                    in_flight.popleft()
            while in_flight:
                yield from self._results(in_flight[0][1])
                in_flight.popleft()
        except DeviceError as error:
            # No device is left. Every frame taken from the source still gets its result.
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
        """Open a session, which takes frames as they come, from any thread; see Session. Its `with`
        block waits until it is warm.

        on_full: what happens to a frame for which there is no room: 'block' waits for room, at most
            submit_timeout_s, then rejects it; 'drop_oldest' drops the frame that has waited
            longest; 'drop_newest' drops it; 'reject' rejects it.
        max_in_flight: frames that wait or are in lanes; by default twice what the lanes take.
        max_batch: frames that a lane takes at once, when that many wait; by default what makes the
        device faster.
        max_age_s: a frame that has waited longer is not started, and is stale.
        order: 'ready', or 'submitted': an outcome waits for those of earlier frames.
        on_ended: called with the Ended of every frame, one at a time, in a thread of its own;
            without it they are read from the session. max_unread: how many may wait for that. Under
            'block' no frame is accepted while there are more; otherwise the oldest are discarded,
            and counted.
        callback_timeout_s: a call that takes longer is reported in Session.problems.
        slide, pixel_um (width of a pixel in µm), pixels: of all frames. keep_frames: results carry
        their frame.
        warm_up_hw: height and width of the coming frames, if they are not 4:3.

        Several sessions of one engine take turns. Close a session before its engine: otherwise
        waiting frames fail.
        """
        self._lanes.check_open()
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
        return Session(self._lanes, self.pack, self.meter, options, on_ended)

    def on_lane(self, work: Callable[[Analyze], Result]) -> Future[Result]:
        """Call a function, in a worker, when a lane is free, with what analyses batches on lanes.

        Cancelled if the engine is closed first.
        """
        return self._lanes.on_lane(work)

    def check_golden(self) -> list[Drift]:
        """Run the pack's golden inputs, one by one and as full batches, and compare the results.

        Returns what differs on each device, within what its precision allows. Raises DeviceError if
        more does.
        """
        return self._lanes.check_golden(self.pack)

    def close(self) -> None:
        """Wait for the batches in flight and free the devices. May be called again."""
        self._lanes.close()

    def __repr__(self) -> str:
        devices = ", ".join(repr(choice.device) for choice in self.choices)
        return f"Engine({self.pack!r}, {devices}, {self.lanes} lanes)"

    def __reduce__(self) -> NoReturn:
        raise RbcError(
            "an Engine cannot be pickled or copied: it holds threads and the memory of a device; send "
            "the pack's name, and open an engine in each process"
        )

    @staticmethod
    def _results(future: Future[list[FieldResult]]) -> list[FieldResult]:
        """Wait for results. Raises RbcError if the engine was closed before they were begun."""
        try:
            return future.result()
        except CancelledError as error:
            raise RbcError("the engine was closed; open a new one") from error

    def _submit(self, batch: Sequence[Decoded], *, keep_frames: bool) -> Future[list[FieldResult]]:
        return self.on_lane(lambda analyze: analyze(batch, keep_frames=keep_frames))
