"""Run the lanes of an engine: a thread for each, on devices that are verified before use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from rbc_engine.closing import Closing
from rbc_engine.devices.base import DeviceChoice
from rbc_engine.errors import DeviceError, DeviceMemoryError, RbcError
from rbc_engine.lanes.base import Analyze, AnyLane
from rbc_engine.lanes.lane import Lane
from rbc_engine.lanes.pool import DeviceLanes, LanePool
from rbc_engine.lanes.prove import check_caller, check_golden
from rbc_engine.lanes.stages.call import Caller
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.lanes.views.any_size import AnySizeLane
from rbc_engine.meter import Meter
from rbc_engine.packs.pack import Pack
from rbc_engine.stats.drift import Drift
from rbc_engine.types.frames import HOST, Decoded, Place
from rbc_engine.types.results import FieldResult

__all__ = ["Lanes", "lane_maker"]

Result = TypeVar("Result")

# Largest share of a GPU's free memory that lanes may take.
_MEMORY_SHARE = 0.8
# How long on_every_lane waits before it looks whether a lane was lost.
_LANE_LOST_S = 0.2


def lane_maker(
    pack: Pack,
    *,
    meter: Meter,
    estimate_scale: bool = False,
    field_prior: FieldPrior | None = None,
) -> Callable[[DeviceChoice], AnyLane]:
    """Return a function that makes one lane of a pack on a device, for frames of any size. Its
    lanes share the pack's caller.

    estimate_scale, field_prior: as for Lane.

    Raises PackError if the caller does not call as the pack's golden regions say.
    """
    caller = Caller(pack)
    check_caller(pack, caller)

    def make(choice: DeviceChoice) -> AnyLane:
        lane = Lane(
            choice.device,
            pack,
            caller,
            batch_frames=choice.batch_frames,
            batch_patches=choice.batch_patches,
            threads=choice.threads,
            meter=meter,
            estimate_scale=estimate_scale,
            field_prior=field_prior,
        )
        return AnySizeLane(
            lane, pack.manifest, batch=choice.batch_frames, estimate_scale=estimate_scale
        )

    return make


class Lanes(Closing):
    """Run lanes on one or several devices, with a worker thread for each. `len` is how many are in
    use.

    choices: the devices, which are taken over: closing the lanes closes them.
    make: makes one lane on a device.
    """

    def __init__(
        self, choices: Sequence[DeviceChoice], make: Callable[[DeviceChoice], AnyLane]
    ) -> None:
        self.choices = tuple(choices)
        self._notes: list[str] = []
        self._pool = LanePool(
            [
                DeviceLanes(
                    choice.device.name,
                    choice.place,
                    [make(choice) for _ in range(choice.lanes)],
                )
                for choice in choices
            ],
            say=self._notes.append,
        )
        self._workers = ThreadPoolExecutor(len(self._pool), thread_name_prefix="rbc-lane")
        self._process = os.getpid()
        self._closed = False
        self._closing = threading.Lock()
        self._taking_all = threading.Lock()
        self._preparing: threading.Thread | None = None
        if not self.choices[0].kind.keeps_networks:
            # While the caller reads the first frames and a lane compiles network A for them: it
            # holds no lane.
            self._preparing = threading.Thread(
                target=self._prepare, args=(make,), name="rbc-prepare"
            )
            self._preparing.start()

    def __len__(self) -> int:
        return len(self._pool)

    @property
    def notes(self) -> list[str]:
        """Return why no faster device or precision was chosen, and what had to be given up
        since.
        """
        return [*(note for choice in self.choices for note in choice.notes), *self._notes]

    def check_open(self) -> None:
        """Raise RbcError if the lanes, and so their engine, are closed, or of another process."""
        self.check_process()
        if self._closed:
            raise RbcError("the engine is closed; open a new one")

    def check_process(self) -> None:
        """Raise RbcError in a child of the process that opened the lanes."""
        if self._forked:
            raise RbcError(
                f"the engine was opened by process {self._process}, and this is a child of it, "
                f"{os.getpid()}, which has none of its threads; open an engine in each process"
            )

    def on_lane(self, work: Callable[[Analyze], Result]) -> Future[Result]:
        """Call a function, in a worker, when a lane is free, with what analyses batches on lanes.

        Cancelled if the lanes are closed first.
        """
        self.check_open()
        try:
            return self._workers.submit(work, self._analyze)
        except RuntimeError as error:  # closed since
            raise RbcError("the engine is closed; open a new one") from error

    def on_every_lane(self, work: Callable[[AnyLane], object]) -> None:
        """Call a function with each lane, here, as soon as it is free. No lane is in use when it
        returns.
        """
        held: list[AnyLane] = []
        with self._taking_all:  # two at a time would each wait for what the other holds
            self.check_open()
            try:
                # A device may be lost meanwhile, and its lanes with it.
                while len(held) < len(self):
                    lane = self._pool.take(timeout_s=_LANE_LOST_S)
                    if lane is not None:
                        held.append(lane)
                        work(lane)
            finally:
                for lane in held:
                    self._pool.give(lane)

    def check_golden(self, pack: Pack) -> list[Drift]:
        """Run the pack's golden inputs, one by one and as full batches, and compare the results.

        Returns what differs on each device, within what its precision allows. Raises DeviceError if
        more does.
        """
        self.check_open()
        return [self._check_golden(pack, choice) for choice in self.choices]

    def prove(self, pack: Pack) -> None:
        """Run the golden inputs on every device that keeps its networks, before it gets frames.

        No lane has taken memory yet.

        They compile what is not compiled yet, warm the GPU up, show how much memory a lane takes,
        and must come out right.
        """
        for choice in self.choices:
            if choice.kind.keeps_networks:
                self._prove(pack, choice)

    def close(self) -> None:
        """Wait for the batches in flight and free the devices. May be called again.

        In a child of the process that opened them it does nothing: nothing of them is the child's.
        """
        if self._forked:
            return
        with self._closing:
            if self._closed:
                return
            self._closed = True
        if self._preparing is not None:
            self._preparing.join()
        with self._taking_all:
            self._workers.shutdown(wait=True, cancel_futures=True)
            self._pool.close()
        for choice in self.choices:
            # A lost device refuses this too; its loss has been reported already.
            with suppress(DeviceError):
                choice.device.enter()
                choice.device.close()

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._process

    def _prepare(self, make: Callable[[DeviceChoice], AnyLane]) -> None:
        """Compile what does not depend on the frames; on the host the lanes share the result."""
        # An error here is raised again where a lane needs what is missing.
        with suppress(Exception):
            make(self.choices[0]).prepare()

    def _analyze(
        self,
        batch: Sequence[Decoded],
        *,
        keep_frames: bool = False,
        place: Place | None = None,
    ) -> list[FieldResult]:
        """Return the results of a batch, from the device whose memory holds its frames, if one
        does.
        """
        if place is None:
            held = {decoded.frame.place for decoded in batch if decoded.frame is not None}
            place = next(iter(held - {HOST}), None)
        return self._do(lambda lane: lane.analyze(batch, keep_frames=keep_frames), place)

    def _do(self, work: Callable[[AnyLane], Result], place: Place | None) -> Result:
        """Do work on a free lane, and on another one if that fails. Raises DeviceError if none is
        left.
        """
        while True:
            lane = self._pool.take(place)
            try:
                done = work(lane)
            except DeviceMemoryError as error:
                self._pool.shrink(lane, error)
            except DeviceError as error:
                self._pool.lose(lane, error)
            except BaseException:
                self._pool.give(lane)
                raise
            else:
                self._pool.give(lane)
                return done

    def _check_golden(self, pack: Pack, choice: DeviceChoice) -> Drift:
        return check_golden(pack, choice, lambda batch: self._analyze(batch, place=choice.place))

    def _prove(self, pack: Pack, choice: DeviceChoice) -> None:
        device = choice.device
        device.enter()
        before = device.free_bytes() or 0
        self._do(lambda lane: lane.prepare(), choice.place)
        self._check_golden(pack, choice)
        device.enter()
        free = device.free_bytes() or 0
        taken = max(before - free, 1)
        lane = self._pool.take(choice.place)
        most = 1 + int(_MEMORY_SHARE * free / taken)
        self._pool.limit(
            lane,
            most,
            f"the first lane took {taken >> 20} MiB of GPU memory, and {free >> 20} MiB are left",
        )
        self._pool.give(lane)
