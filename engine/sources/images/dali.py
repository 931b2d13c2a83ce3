"""JPEG files decoded on the GPU by NVIDIA DALI; the frames stay in its memory.

DALI is handed bytes, batch by batch, and decodes whole frames ahead of the reader. Only plain JPEGs
go to it: what it would read differently (CMYK), what it decodes on the CPU all the same (PNG, TIFF,
...), and what is damaged in its header are decoded as without DALI. A batch in which one file
breaks is lost to DALI as a whole: its files are then decoded one by one on the CPU, which finds the
bad one, and the pipeline is made anew.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.closing import Closing
from rbc_engine.errors import ImageError
from rbc_engine.sources.images.ahead import ReadAhead
from rbc_engine.sources.images.base import Picture, PictureNotes
from rbc_engine.sources.images.decode import decode_picture, read_stamped
from rbc_engine.sources.images.jpeg import jpeg_scale, plain_jpeg
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import HOST, Decoded, FieldRef, FileStamp, Place

__all__ = ["DaliImage", "DaliSource", "build_pipeline"]

_PREFETCH = 2
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)
_MOST_THREADS = 8


class DaliImage:
    """Hold pixels that DALI decoded; see rbc_engine.types.frames.Frame.pixels.

    The memory lasts as long as this does.
    """

    def __init__(self, tensor: Any, place: Place) -> None:
        self.tensor = tensor
        self.place = place
        self.shape = tuple(int(length) for length in tensor.shape())
        self.dtype = np.dtype(np.uint8)

    def to_host(self) -> UInt8:
        tensor = self.tensor if self.place == HOST else self.tensor.as_cpu()
        pixels: UInt8 = np.from_dlpack(tensor).copy()
        return pixels

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


def build_pipeline(
    batches: Iterator[list[npt.NDArray[np.uint8]]],
    *,
    batch_size: int,
    threads: int,
    place: Place,
) -> Any:
    """Build a DALI pipeline whose `run()` returns the next batch, then raises StopIteration.

    batches: contents of JPEG files, uint8 [bytes] each, at most batch_size a batch; read ahead of
        `run`.
    threads: of the CPU, for what of a JPEG the GPU does not decode.
    place: whose memory the images are to lie in; HOST decodes the same on the CPU.
    """
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(
        batch_size=batch_size,
        num_threads=threads,
        device_id=None if place == HOST else place.number,
        prefetch_queue_depth=_PREFETCH,
    )
    with pipeline:
        files = fn.external_source(
            source=lambda: next(batches), batch=True, device="cpu", dtype=types.UINT8, ndim=1
        )
        # RGB even of grey JPEGs. The whole frame: reading a part of it has crashed.
        images = fn.decoders.image(
            files, device="cpu" if place == HOST else "mixed", output_type=types.RGB
        )
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline


@dataclass(eq=False)
class _Item:
    """Hold one entry on its way: decoded already, or the bytes of a JPEG for DALI."""

    ref: FieldRef
    data: bytes | None = None
    decoded: Decoded | None = None
    seconds: float = 0.0
    stamp: FileStamp | None = None


@dataclass(eq=False)
class _Batch:
    items: list[_Item]

    @property
    def jpegs(self) -> list[_Item]:
        return [item for item in self.items if item.data is not None]


class DaliSource(Closing):
    """Yield frames of fields, decoded ahead on GPUs: a Source of a Decoded for every entry.

    places: the GPUs' memory, each with a pipeline of its own; batches go to them in turn. `[HOST]`
        is the CPU.
    batch_size: files a batch: as many as a lane takes frames, so that a lane's frames are on one
        GPU.
    workers: CPU threads that read files, and that each pipeline uses.
    ahead: the most files that have been read and wait.

    given_up: how many batches DALI could not decode as a whole.
    """

    def __init__(
        self,
        entries: Sequence[FieldRef | Decoded],
        *,
        places: Sequence[Place],
        batch_size: int,
        workers: int,
        ahead: int,
        pixel_um: float | None = None,
    ) -> None:
        self.given_up = 0
        self._notes = PictureNotes(pixel_um)
        self._batch_size = batch_size
        self._read = ReadAhead(self._read_item, entries, workers=workers, ahead=max(ahead, workers))
        self._unread = self._batches()
        # Batch number i goes to pipeline i modulo their number; each takes its own out of here.
        self._dealt: list[deque[_Batch]] = [deque() for _ in places]
        self._dealing = 0
        self._decoders = [
            _Decoder(
                functools.partial(self._next_batch, index),
                place=place,
                batch_size=batch_size,
                threads=min(workers, _MOST_THREADS),
            )
            for index, place in enumerate(places)
        ]

    @property
    def notes(self) -> Sequence[str]:
        lines = self._notes.lines()
        if not self.given_up:
            return lines
        return [
            *lines,
            f"DALI could not decode {self.given_up} batches of {self._batch_size} files as a "
            "whole; their files were decoded one by one on the CPU",
        ]

    def __iter__(self) -> Iterator[Decoded]:
        for decoder in itertools.cycle(self._decoders):
            started = time.perf_counter()
            taken = decoder.take()
            if taken is None:
                return
            batch, images = taken
            share_s = (time.perf_counter() - started) / max(len(batch.jpegs), 1)
            if images is None:
                self.given_up += 1
            yield from self._results(batch, images, share_s)

    def close(self) -> None:
        """Stop the threads and the pipelines. May be called again."""
        self._read.close()
        for decoder in self._decoders:
            decoder.close()

    def _read_item(self, entry: FieldRef | Decoded) -> _Item:
        if isinstance(entry, Decoded):
            return _Item(entry.ref, decoded=entry)
        started = time.perf_counter()
        item = _Item(entry)
        try:
            data, item.stamp = read_stamped(entry.path, name=entry.field)
            if plain_jpeg(data):
                item.data = data
                item.seconds = time.perf_counter() - started
            else:
                item.decoded = self._decode_here(item, data, started)
        except ImageError as error:
            item.decoded = Decoded(
                ref=entry,
                error=str(error),
                seconds=time.perf_counter() - started,
                stamp=item.stamp,
            )
        return item

    def _batches(self) -> Iterator[_Batch]:
        items: list[_Item] = []
        for item in self._read:
            items.append(item)
            if len(items) == self._batch_size:
                yield _Batch(items)
                items = []
        if items:
            yield _Batch(items)

    def _next_batch(self, index: int) -> _Batch | None:
        """Return the next batch of pipeline `index`; None after the last one."""
        while not self._dealt[index]:
            batch = next(self._unread, None)
            if batch is None:
                return None
            self._dealt[self._dealing % len(self._dealt)].append(batch)
            self._dealing += 1
        return self._dealt[index].popleft()

    def _results(
        self, batch: _Batch, images: list[DaliImage] | None, share_s: float
    ) -> Iterator[Decoded]:
        ready = iter(images or ())
        for item in batch.items:
            if item.decoded is not None:
                yield item.decoded
            elif images is not None:
                item.seconds += share_s
                yield self._done(item, next(ready))
            else:
                assert item.data is not None
                item.seconds += share_s
                yield self._decode_here(item, item.data, time.perf_counter())

    def _decode_here(self, item: _Item, data: bytes, started: float) -> Decoded:
        """Decode on the CPU, as without DALI."""
        try:
            frame, reason = (
                self._notes.frame(item.ref, decode_picture(data, name=item.ref.field)),
                None,
            )
        except ImageError as error:
            frame, reason = None, str(error)
        item.seconds += time.perf_counter() - started
        return Decoded(
            ref=item.ref, frame=frame, error=reason, seconds=item.seconds, stamp=item.stamp
        )

    def _done(self, item: _Item, image: DaliImage) -> Decoded:
        pixels = image.to_host() if image.place == HOST else image
        stated = Picture(pixels=_NO_PIXELS, scale=jpeg_scale(item.data or b""))
        frame = self._notes.frame(item.ref, stated, pixels=pixels)
        return Decoded(ref=item.ref, frame=frame, seconds=item.seconds, stamp=item.stamp)


class _Decoder:
    """Run one pipeline, and keep the batches that are in it.

    next_batch: gives the batches to decode, None after the last.
    """

    def __init__(
        self,
        next_batch: Callable[[], _Batch | None],
        *,
        place: Place,
        batch_size: int,
        threads: int,
    ) -> None:
        self._next_batch = next_batch
        self._place = place
        self._batch_size = batch_size
        self._threads = threads
        self._order: deque[_Batch] = deque()  # taken from next_batch, and not handed out
        self._unfed: deque[_Batch] = deque()  # of these, those that a new pipeline begins with
        self._pipeline: Any = None

    def take(self) -> tuple[_Batch, list[DaliImage] | None] | None:
        """Return the oldest batch and the images of its JPEGs; None after the last batch.

        The images are None if DALI could not decode one of them.
        """
        if not self._order and not self._pull():
            return None
        batch = self._order[0]
        images: list[DaliImage] | None = []
        if batch.jpegs:
            if self._pipeline is None:
                self._unfed = deque(waiting for waiting in self._order if waiting.jpegs)
                self._pipeline = build_pipeline(
                    self._feed(),
                    batch_size=self._batch_size,
                    threads=self._threads,
                    place=self._place,
                )
            try:
                (output,) = self._pipeline.run()
                images = [
                    DaliImage(output[index], self._place) for index in range(len(batch.jpegs))
                ]
            except RuntimeError:
                # DALI rarely says which file it was, and the pipeline is of no more use. What else
                # was in it goes into the next one.
                images, self._pipeline = None, None
        self._order.popleft()
        return batch, images

    def close(self) -> None:
        self._pipeline = None
        self._order.clear()
        self._unfed.clear()

    def _pull(self) -> bool:
        batch = self._next_batch()
        if batch is not None:
            self._order.append(batch)
        return batch is not None

    def _feed(self) -> Iterator[list[npt.NDArray[np.uint8]]]:
        """Return the next batch that the pipeline reads ahead."""
        while True:
            if self._unfed:
                batch = self._unfed.popleft()
            elif self._pull():
                batch = self._order[-1]
            else:
                return
            if batch.jpegs:
                yield [np.frombuffer(item.data or b"", np.uint8) for item in batch.jpegs]
