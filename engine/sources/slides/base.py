"""What an open whole slide is: its levels, its µm per pixel, and reading any part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from rbc_engine.errors import ImageError
from rbc_engine.libraries import Library
from rbc_engine.sources.stated_scale import StatedScale
from rbc_engine.types.arrays import UInt8

__all__ = [
    "MAX_SLIDE_SIDE_PX",
    "OPENSLIDE",
    "Box",
    "Level",
    "Slide",
    "SlideModule",
    "checked_levels",
]

MAX_SLIDE_SIDE_PX = 1 << 20
"""Longest side of a slide: scanners make less than a third of it."""

OPENSLIDE = Library(
    name="OpenSlide",
    module="openslide",
    distributions=("openslide-python",),
    remedy="pip install 'rbc-engine[slides]'",
)


class Box(NamedTuple):
    """Bound a part of a level: x0, y0, x1, y1 in its pixels, the far edges exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True, kw_only=True)
class Level:
    """Describe one level of a pyramid. down: level-0 pixels per pixel, 1.0 for level 0."""

    width: int
    height: int
    down: float


class Slide(Protocol):
    """Represent an open slide.

    reader: the library that reads it, with its version.
    levels: the largest first; each has the whole of what level 0 shows.
    scale: how wide a level-0 pixel is, None if the file does not say, or says what cannot be.
    origin: x and y, in the file's own pixels, of the first pixel of level 0, where viewers begin.
    notes: what of the file is not used, and why.
    """

    reader: str
    levels: Sequence[Level]
    scale: StatedScale | None
    origin: tuple[int, int]
    notes: list[str]

    def read(self, level: int, box: Box) -> tuple[UInt8, bool]:
        """Read part of a level; may be called from several threads.

        box: within the level.

        Returns uint8 [H, W, 3] RGB, and whether the file has all of it: what was not scanned comes
        out in the slide's background colour. Raises ImageError if the file is damaged there.
        """
        ...

    def close(self) -> None:
        """Close it. May be called again."""
        ...


class SlideModule(Protocol):
    """Read slides, as a module of this room; see rbc_engine.sources.slides.table."""

    def is_slide(self, path: Path) -> bool:
        """Tell a slide from an image, of a file that begins as the reader's files do.

        False if it cannot be read.
        """
        ...

    def open_file(self, path: Path, *, named: bool) -> Slide | None:
        """Open a slide; None if the file is none of this reader's.

        named: its name says that it is one of this reader's.

        Raises ImageError if it is one, and cannot be used.
        """
        ...


def checked_levels(sizes: Sequence[tuple[int, int]], *, notes: list[str]) -> dict[int, Level]:
    """Return the levels that show all of level 0, by index; others are omitted with a note.

    sizes: width and height of each level, level 0 first.

    Raises ImageError if level 0 is too large.
    """
    width, height = sizes[0]
    if max(width, height) > MAX_SLIDE_SIDE_PX or min(width, height) < 1:
        raise ImageError(
            f"{width}x{height} px, but a slide's sides must lie in 1..{MAX_SLIDE_SIDE_PX} px; "
            "export it again"
        )
    levels: dict[int, Level] = {}
    for index, (level_width, level_height) in enumerate(sizes):
        down = width / max(level_width, 1)
        # Programs round sizes up or down.
        fits = level_height >= 1 and abs(height / down - level_height) <= 1 + 0.01 * level_height
        if down < 1 or not fits:
            notes.append(
                f"level {index} of {level_width}x{level_height} px is no reduced image of "
                f"{width}x{height} px: not used"
            )
            continue
        levels[index] = Level(width=level_width, height=level_height, down=down)
    return levels
