"""Slides of vendors' formats (SVS, NDPI, MRXS, SCN, VMS, BIF, ...), read by OpenSlide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.sources.slides.base import (
    OPENSLIDE,
    Box,
    Level,
    checked_levels,
)
from rbc_engine.sources.stated_scale import StatedScale, checked_pixel_um, objective_scale
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8

__all__ = ["OpenSlideSlide", "is_slide", "open_file"]

_GENERIC = "generic-tiff"
_WHITE = (255, 255, 255)

_MAX_TILE_PX = 1 << 24
"""Of a part of a level that OpenSlide unpacks at once: 64 MiB."""


def is_slide(path: Path) -> bool:
    """Return False: only the name decides, before OpenSlide is asked."""
    return False


def open_file(path: Path, *, named: bool) -> OpenSlideSlide | None:
    """Open a slide, see SlideModule. None also for what OpenSlide takes for a generic TIFF.

    Without OpenSlide, a file that is named like a vendor's raises ImageError, and any other is none
    of its own.
    """
    vendor = _vendor(path, needed=named)
    return None if vendor is None else OpenSlideSlide(path, vendor=vendor)


def _vendor(path: Path, *, needed: bool) -> str | None:
    try:
        import openslide
    except ImportError as error:
        if not needed:
            return None
        raise ImageError(
            "a slide of this format is read by OpenSlide, which is not installed "
            f"({printable(str(error))}); {OPENSLIDE.remedy}"
        ) from error
    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return None if vendor == _GENERIC else vendor


class OpenSlideSlide:
    """See rbc_engine.sources.slides.base.Slide.

    OpenSlide's own cache of decoded tiles is bounded (32 MB).
    """

    def __init__(self, path: Path, *, vendor: str) -> None:
        import openslide

        self._error = openslide.OpenSlideError
        self.reader = f"OpenSlide {openslide.__library_version__} ({vendor})"
        self.notes: list[str] = []
        try:
            self._slide: Any = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise self._damaged(error) from error
        try:
            properties = self._slide.properties
            x, y, width, height = _bounds(self._slide.dimensions, properties)
            self.origin = (x, y)
            sizes = [
                (min(int(width / down), most[0]), min(int(height / down), most[1]))
                for down, most in zip(
                    self._slide.level_downsamples, self._slide.level_dimensions, strict=True
                )
            ]
            levels = self._bounded(checked_levels(sizes, notes=self.notes), properties)
            self._numbers = list(levels)
            self.levels: Sequence[Level] = list(levels.values())
            self._background = _colour(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR))
            self.scale = self._stated_scale(
                properties.get(openslide.PROPERTY_NAME_MPP_X),
                properties.get(openslide.PROPERTY_NAME_MPP_Y),
                properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER),
            )
        except BaseException:
            self.close()
            raise

    def read(self, level: int, box: Box) -> tuple[UInt8, bool]:
        down = self.levels[level].down
        # OpenSlide wants the corner in level-0 pixels, and places it to a fraction of one of the
        # level.
        x, y = self.origin
        corner = (x + round(box.x0 * down), y + round(box.y0 * down))
        size = (box.x1 - box.x0, box.y1 - box.y0)
        try:
            rgba = np.asarray(self._slide.read_region(corner, self._numbers[level], size))
        except self._error as error:
            raise self._damaged(error) from error
        alpha = rgba[..., 3:]
        if alpha.min() == 255:
            return np.ascontiguousarray(rgba[..., :3]), True
        share = alpha.astype(np.float32) / 255
        mixed = rgba[..., :3] * share + np.array(self._background, np.float32) * (1 - share)
        return np.rint(mixed).astype(np.uint8), False

    def close(self) -> None:
        self._slide.close()

    def _bounded(self, levels: dict[int, Level], properties: Mapping[str, str]) -> dict[int, Level]:
        """Return the levels without those whose parts are too large to unpack.

        Raises ImageError if level 0 is such.
        """
        usable = {}
        for index, level in levels.items():
            width, height = _tile_size(properties, index)
            if width * height <= _MAX_TILE_PX:
                usable[index] = level
                continue
            reason = (
                f"parts of {width}x{height} px, more than {_MAX_TILE_PX >> 20} million pixels each"
            )
            if index == 0:
                raise ImageError(f"{reason}; export it as a pyramidal TIFF with smaller tiles")
            self.notes.append(f"level {index} is not used: {reason}")
        return usable

    def _stated_scale(self, x: str | None, y: str | None, power: str | None) -> StatedScale | None:
        if x is not None:
            try:
                widths = (float(x), float(y if y is not None else x))
            except ValueError:
                self.notes.append(f"its µm per pixel are no number ({printable(x)!r:.40}): ignored")
            else:
                width = checked_pixel_um(widths, stated_in="metadata", notes=self.notes)
                if width is not None:
                    return StatedScale(width, "its metadata")
        found = objective_scale(power, notes=self.notes)
        if found is not None:
            self.notes.append(
                f"it says no µm per pixel, but {found.by}: taken as {found.pixel_um:.4g} µm per "
                "pixel"
            )
        return found

    @staticmethod
    def _damaged(error: Exception) -> ImageError:
        return ImageError(f"damaged slide ({printable(str(error)):.200}); copy or scan it again")


def _bounds(size: tuple[int, int], properties: Mapping[str, str]) -> tuple[int, int, int, int]:
    """Return x, y, width and height of what the slide says is not empty; QuPath shows that."""
    names = (f"openslide.bounds-{name}" for name in ("x", "y", "width", "height"))
    try:
        x, y, width, height = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return (0, 0, *size)
    if min(x, y) < 0 or min(width, height) < 1 or x + width > size[0] or y + height > size[1]:
        return (0, 0, *size)
    return x, y, width, height


def _tile_size(properties: Mapping[str, str], level: int) -> tuple[int, int]:
    """Return width and height of what is unpacked at once, px; 0 if OpenSlide does not say."""
    keys = [
        (f"openslide.level[{level}].tile-width", f"openslide.level[{level}].tile-height"),
        *(
            (key, key.removesuffix("WIDTH") + "HEIGHT")  # of any level of a MIRAX slide
            for key in properties
            if key.startswith("mirax.") and key.endswith(".DIGITIZER_WIDTH")
        ),
    ]
    sizes = []
    for names in keys:
        try:
            width, height = (int(properties.get(name, "0")) for name in names)
        except ValueError:
            continue  # OpenSlide does not read it as a number either
        sizes.append((width, height))
    return max(sizes, key=math.prod, default=(0, 0))


def _colour(text: str | None) -> tuple[int, int, int]:
    """Return a colour that a slide states as RRGGBB; white without one."""
    try:
        value = bytes.fromhex(text or "")
    except ValueError:
        return _WHITE
    return (value[0], value[1], value[2]) if len(value) == 3 else _WHITE
