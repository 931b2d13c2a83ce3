"""The engine: a pack on a device, its lanes, and the order of results."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rbc_engine.closing import Closing
from rbc_engine.devices.select import DeviceChoice, open_device
from rbc_engine.errors import ImageError, RbcError, UsageError
from rbc_engine.lane import Lane
from rbc_engine.meter import Meter
from rbc_engine.pack import Pack, find_pack
from rbc_engine.stages.call import Caller
from rbc_engine.types import Decoded, FieldRef, FieldResult, Frame, UInt8

__all__ = ["Engine"]


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

    def close(self) -> None:
        """Waits for the batches in flight and frees the device. May be called again."""
        if not self._closed:
            self._closed = True
            self._workers.shutdown(wait=True, cancel_futures=True)
            self.choice.device.close()

    def __repr__(self) -> str:
        return f"Engine({self.pack!r}, {self.choice.device!r}, {self.choice.lanes} lanes)"

    def _submit(self, batch: Sequence[Decoded], *, keep_frames: bool) -> Future[list[FieldResult]]:
        if self._closed:
            raise RbcError("the engine is closed; open a new one")
        return self._workers.submit(self._work, batch, keep_frames)

    def _prepare(self) -> None:
        lane = self._free.get()
        try:
            lane.prepare()
        finally:
            self._free.put(lane)

    def _work(self, batch: Sequence[Decoded], keep_frames: bool) -> list[FieldResult]:
        lane = self._free.get()
        try:
            return lane.analyze(batch, keep_frames=keep_frames)
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
