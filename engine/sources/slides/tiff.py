"""Read slides that are generic or OME TIFFs: pyramids and large single images, tiled or in strips.

tifffile reads what describes the levels. Pixels are read here, segment by segment (tile or strip),
so that nothing larger than a segment is ever unpacked, and from several threads at once.
"""

from __future__ import annotations

import logging
import math
import os
import re
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
from rbc_engine.sources.slides.base import Box, Level, checked_levels, checked_pixel_um
from rbc_engine.sources.slides.tiff_level import TiffLevel
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX

__all__ = ["TiffSlide", "is_slide", "open_file"]

_MAX_PAGES = 256
_CACHE_BYTES = 256 * 2**20
"""Decoded segments: enough for one row of tiles of a slide 60,000 px wide in strips."""

_AXES = ("YXS", "YX", "SYX")
_UM_PER_UNIT = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4}
_UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}
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
            sizes = [(int(page.imagewidth), int(page.imagelength)) for page in pages]
            # A pyramid whose smaller levels are lost is one all the same.
            return sizes * 2 if len(sizes) == 1 and _SUBIFDS in pages[0].tags else sizes
    except MemoryError:
        raise
    except Exception:  # on damaged files tifffile raises whatever comes
        return []


class TiffSlide:
    """See rbc_engine.sources.slides.base.Slide."""

    def __init__(self, path: Path) -> None:
        self.reader = f"tifffile {tifffile.__version__}"
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
        image = self._images[level]
        pixels = np.empty((box.y1 - box.y0, box.x1 - box.x0, image.samples), np.uint8)
        if image.rows_are_plain:
            self._read_rows(image, box, pixels)
        else:
            self._read_segments(level, image, box, pixels)
        if image.samples == 1:
            grey = 255 - pixels if image.inverted else pixels
            return np.repeat(grey, 3, axis=2), True
        return pixels, True

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._file)

    def _describe(self, tiff: Any, file_bytes: int) -> None:
        series, pages = _largest_image(tiff)
        levels = checked_levels(
            [(int(page.imagewidth), int(page.imagelength)) for page in pages], notes=self.notes
        )
        usable: list[Level] = []
        self._images: list[TiffLevel] = []
        for index, level in levels.items():
            try:
                image = TiffLevel.of(pages[index], file_bytes)
            except ImageError as error:
                if index == 0:
                    raise
                self.notes.append(
                    f"level {index} of {level.width}x{level.height} px is not used: {error}"
                )
                continue
            usable.append(level)
            self._images.append(image)
        self.levels: Sequence[Level] = usable
        if len(pages) == 1 and _SUBIFDS in pages[0].tags:
            self.notes.append("its smaller levels are missing: only level 0 is used")
        others = len(tiff.series) - 1
        if tiff.is_ome and others:
            self.notes.append(
                f"{others} smaller images beside the largest were not looked at (labels, overviews)"
            )
        self.pixel_um = self._stated_pixel_um(tiff, series, pages[0])

    def _stated_pixel_um(self, tiff: Any, series: int, page: Any) -> float | None:
        if tiff.is_ome:
            return _ome_pixel_um(str(tiff.ome_metadata or ""), series, self.notes)
        unit = _UM_PER_RESOLUTION_UNIT.get(int(page.tags.valueof(296, 2)))
        rationals = [page.tags.valueof(tag) for tag in (282, 283)]
        if unit is None or any(value is None for value in rationals):
            return None
        if any(not numerator or not denominator for numerator, denominator in rationals):
            return None
        widths = [unit * denominator / numerator for numerator, denominator in rationals]
        return checked_pixel_um((widths[0], widths[1]), stated_in="resolution", notes=self.notes)

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

    def _read_segments(self, level: int, image: TiffLevel, box: Box, pixels: UInt8) -> None:
        height, width = image.segment_hw
        for row in range(box.y0 // height, -(-box.y1 // height)):
            for column in range(box.x0 // width, -(-box.x1 // width)):
                y, x = row * height, column * width
                y0, y1 = max(box.y0, y), min(box.y1, y + height)
                x0, x1 = max(box.x0, x), min(box.x1, x + width)
                target = pixels[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0]
                for plane in range(image.planes):
                    segment = self._segment(level, image, plane, row, column)
                    part = segment[y0 - y : y1 - y, x0 - x : x1 - x]
                    if image.planes == 1:
                        target[:] = part[..., : image.samples]
                    else:
                        target[..., plane] = part[..., 0]

    def _segment(self, level: int, image: TiffLevel, plane: int, row: int, column: int) -> UInt8:
        """Return one decoded tile or strip, uint8 [h, w, samples]; smaller at the image's edges."""
        rows, columns = image.grid
        index = (plane * rows + row) * columns + column
        found = self._cache.get((level, index))
        if found is not None:
            return found
        data = self._bytes(image.offsets[index], image.byte_counts[index])
        segment = image.unpack(
            data, index, needed_hw=image.shown_hw(row, column), where=f"level {level}, part {index}"
        )
        self._cache.put((level, index), segment)
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
        self._kept: OrderedDict[tuple[int, int], UInt8] = OrderedDict()

    def get(self, key: tuple[int, int]) -> UInt8 | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[int, int], segment: UInt8) -> None:
        with self._lock:
            if key in self._kept:  # two threads wanted it at once
                return
            self._kept[key] = segment
            self._bytes += segment.nbytes
            while self._bytes > self._most_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes


def _largest_image(tiff: Any) -> tuple[int, list[Any]]:
    """Return the series with the most pixels: its number, and a page for each of its levels."""
    if len(list(islice(tiff.pages, _MAX_PAGES + 1))) > _MAX_PAGES:
        raise ImageError(f"more than {_MAX_PAGES} images; export the slide as a file of its own")
    all_series = bounded_series(tiff)
    number = max(
        range(len(all_series)), key=lambda i: math.prod(all_series[i].levels[0].shape), default=None
    )
    if number is None:
        raise ImageError("holds no image; copy or export it again")
    levels = all_series[number].levels
    if levels[0].axes not in _AXES or len(levels[0].pages) != 1:
        raise ImageError(
            f"a stack with axes {printable(str(levels[0].axes))}, not one image in colour or grey; "
            "export one plane"
        )
    return number, [level.keyframe for level in levels if len(level.pages) == 1]


def _ome_pixel_um(xml: str, series: int, notes: list[str]) -> float | None:
    """Return PhysicalSizeX and Y of an image in OME's XML, which is searched, not parsed."""
    elements = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml[: 1 << 22])
    if series >= len(elements):
        return None
    widths = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([^"]{{1,40}})"', elements[series])
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]{{1,20}})"', elements[series])
        name = unit[1].replace("&#181;", "µ").replace("&#xB5;", "µ") if unit else "µm"
        if size is None:
            return None
        try:
            widths.append(float(size[1]) * _UM_PER_UNIT[name])
        except (ValueError, KeyError):
            notes.append(
                f"its PhysicalSize{axis} of {printable(size[1])} {printable(name)} is no length: "
                "ignored"
            )
            return None
    return checked_pixel_um((widths[0], widths[1]), stated_in="PhysicalSizeX", notes=notes)
