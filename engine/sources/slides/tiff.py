"""Read slides that are generic or OME TIFFs: pyramids and large single images, tiled or in strips.

tifffile reads what describes the levels. Pixels are read here, segment by segment (tile or strip),
so that nothing larger than a segment is ever unpacked, and from several threads at once.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.bounded_tiff import bounded_series, open_tiff
from rbc_engine.sources.bounds.regular_file import open_regular
from rbc_engine.sources.images.decode import MAX_FILE_BYTES
from rbc_engine.sources.images.tiff.tiff_pages import channel_order, described_axes
from rbc_engine.sources.slides.base import Box, Level, checked_levels
from rbc_engine.sources.slides.tiff_level import TiffLevel
from rbc_engine.sources.stated_scale import tiff_scale
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX

Place = tuple[int, int]
"""A level, and which channel of it."""

__all__ = ["TiffSlide", "is_slide", "open_file"]

_MAX_PAGES = 256
_CACHE_BYTES = 256 * 2**20
"""Decoded segments: enough for one row of tiles of a slide 60,000 px wide in strips."""

_AXES = ("YXS", "YX", "SYX")
_CHANNELS = "CYX"
_SUBIFDS = 330

# See rbc_engine.sources.images.decode.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def is_slide(path: Path) -> bool:
    """Tell whether a TIFF is a pyramid of several levels, or too large for an image."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return True
    except OSError:
        return False
    levels = _levels(path)
    return len(levels) > 1 or any(max(level) > MAX_SIDE_PX for level in levels)


def open_file(path: Path, *, named: bool) -> TiffSlide:
    """Open a slide, see SlideModule."""
    return TiffSlide(path)


def _levels(path: Path) -> list[tuple[int, int]]:
    """Return width and height of the levels of a TIFF's largest image; none if unreadable."""
    try:
        with open_tiff(path) as tiff:
            _, pages = _largest_image(tiff)
            sizes = [(int(page.imagewidth), int(page.imagelength)) for page, *_ in pages]
            # A pyramid whose smaller levels are lost is one all the same.
            return sizes * 2 if len(sizes) == 1 and _SUBIFDS in pages[0][0].tags else sizes
    except MemoryError:
        raise
    except Exception:  # on damaged files tifffile raises whatever comes
        return []


class TiffSlide:
    """See rbc_engine.sources.slides.base.Slide."""

    def __init__(self, path: Path) -> None:
        self.reader = f"tifffile {tifffile.__version__}"
        self.origin = (0, 0)
        self.notes: list[str] = []
        self._file = open_regular(path)
        self._open = True
        try:
            file_bytes = os.fstat(self._file).st_size
            try:
                with open_tiff(path) as tiff:
                    self._describe(tiff, file_bytes)
            except (ImageError, MemoryError):
                raise
            except Exception as error:
                reason = printable(" ".join(str(error).split()) or type(error).__name__)
                raise ImageError(
                    f"damaged TIFF ({reason:.200}); copy or export it again"
                ) from error
        except BaseException:
            self.close()
            raise
        self._cache = _Cache(_CACHE_BYTES)

    def read(self, level: int, box: Box) -> tuple[UInt8, bool]:
        channels = [
            self._read_image((level, channel), image, box)
            for channel, image in enumerate(self._images[level])
        ]
        if len(channels) == 3:
            return np.concatenate(channels, axis=2), True
        return np.repeat(channels[0], 3, axis=2) if channels[0].shape[2] == 1 else channels[0], True

    def _read_image(self, place: Place, image: TiffLevel, box: Box) -> UInt8:
        pixels = np.empty((box.y1 - box.y0, box.x1 - box.x0, image.samples), np.uint8)
        if image.rows_are_plain:
            self._read_rows(image, box, pixels)
        else:
            self._read_segments(place, image, box, pixels)
        return 255 - pixels if image.inverted else pixels

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._file)

    def _describe(self, tiff: Any, file_bytes: int) -> None:
        series, pages = _largest_image(tiff)
        levels = checked_levels(
            [(int(page.imagewidth), int(page.imagelength)) for page, *_ in pages],
            notes=self.notes,
        )
        usable: list[Level] = []
        self._images: list[list[TiffLevel]] = []
        for index, level in levels.items():
            try:
                channels = [TiffLevel.of(page, file_bytes) for page in pages[index]]
            except ImageError as error:
                if index == 0:
                    raise
                self.notes.append(
                    f"level {index} of {level.width}x{level.height} px is not used: {error}"
                )
                continue
            usable.append(level)
            self._images.append(channels)
        self.levels: Sequence[Level] = usable
        if len(pages) == 1 and _SUBIFDS in pages[0][0].tags:
            self.notes.append("its smaller levels are missing: only level 0 is used")
        others = len(tiff.series) - 1
        if tiff.is_ome and others:
            self.notes.append(
                f"{others} smaller images beside the largest were not looked at (labels, overviews)"
            )
        self.scale = tiff_scale(tiff, pages[0][0], series=series, notes=self.notes, of_slide=True)

    def _read_rows(self, image: TiffLevel, box: Box, pixels: UInt8) -> None:
        """Read the needed rows and columns of uncompressed strips of any size."""
        stored = image.stored
        width_bytes = (box.x1 - box.x0) * stored
        for y in range(box.y0, box.y1):
            strip, row = divmod(y, image.segment_hw[0])
            offset = image.offsets[strip] + (row * image.width + box.x0) * stored
            data = self._bytes(offset, width_bytes)
            row_pixels = np.frombuffer(data, np.uint8).reshape(-1, stored)
            pixels[y - box.y0] = row_pixels[:, : image.samples]

    def _read_segments(self, place: Place, image: TiffLevel, box: Box, pixels: UInt8) -> None:
        height, width = image.segment_hw
        for row in range(box.y0 // height, -(-box.y1 // height)):
            for column in range(box.x0 // width, -(-box.x1 // width)):
                y, x = row * height, column * width
                y0, y1 = max(box.y0, y), min(box.y1, y + height)
                x0, x1 = max(box.x0, x), min(box.x1, x + width)
                target = pixels[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0]
                for plane in range(image.planes):
                    segment = self._segment(place, image, plane, row, column)
                    part = segment[y0 - y : y1 - y, x0 - x : x1 - x]
                    if image.planes == 1:
                        target[:] = part[..., : image.samples]
                    else:
                        target[..., plane] = part[..., 0]

    def _segment(self, place: Place, image: TiffLevel, plane: int, row: int, column: int) -> UInt8:
        """Return one decoded tile or strip, uint8 [h, w, samples]; smaller at the image's edges."""
        rows, columns = image.grid
        index = (plane * rows + row) * columns + column
        found = self._cache.get((*place, index))
        if found is not None:
            return found
        data = self._bytes(image.offsets[index], image.byte_counts[index])
        segment = image.unpack(
            data,
            index,
            needed_hw=image.shown_hw(row, column),
            where=f"level {place[0]}, part {index}",
        )
        self._cache.put((*place, index), segment)
        return segment

    def _bytes(self, offset: int, count: int) -> bytes:
        try:
            data = os.pread(self._file, count, offset)
        except OSError as error:
            raise ImageError(
                f"cannot be read: {printable(error.strerror or str(error))}; copy it again"
            ) from error
        if len(data) != count:
            raise ImageError("the file has become shorter while it was read; copy it again")
        return data


class _Cache:
    """Keep the last used decoded segments, up to so many bytes. May be used from any thread."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, int], UInt8] = OrderedDict()

    def get(self, key: tuple[int, int, int]) -> UInt8 | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[int, int, int], segment: UInt8) -> None:
        with self._lock:
            if key in self._kept:  # two threads wanted it at once
                return
            self._kept[key] = segment
            self._bytes += segment.nbytes
            while self._bytes > self._most_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes


def _largest_image(tiff: Any) -> tuple[int, list[list[Any]]]:
    """Return the series with the most pixels: its number, and for each of its levels a page, or
    three: red, green, blue.
    """
    if len(list(islice(tiff.pages, _MAX_PAGES + 1))) > _MAX_PAGES:
        raise ImageError(f"more than {_MAX_PAGES} images; export the slide as a file of its own")
    first = tiff.pages.first
    if tiff.is_imagej and first.subifds and not described_axes(tiff, first, count=1):
        # tifffile looks for ImageJ's stacks there, not for levels.
        return 0, [[page.aspage()] for page in (first, *first.pages)]
    all_series = bounded_series(tiff)
    number = max(
        range(len(all_series)), key=lambda i: math.prod(all_series[i].levels[0].shape), default=None
    )
    if number is None:
        raise ImageError("holds no image; copy or export it again")
    levels = all_series[number].levels
    shape = dict(zip(levels[0].axes, levels[0].shape, strict=True))
    count = len(levels[0].pages)
    if levels[0].axes in _AXES and count == 1:
        order: tuple[int, ...] = (0,)
    elif levels[0].axes == _CHANNELS and shape["C"] == count == 3:
        order = channel_order(tiff)
    else:
        raise ImageError(
            f"a stack with axes {printable(str(levels[0].axes))}, not one image in colour or grey; "
            "export one plane"
        )
    return number, [
        [level.pages[index].aspage() for index in order]
        for level in levels
        if len(level.pages) == count
    ]
