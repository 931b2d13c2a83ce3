"""Tells whole slides from images, and opens them with the reader that fits."""

from __future__ import annotations

from pathlib import Path

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.regular_file import read_start
from rbc_engine.sources.slides.base import Slide
from rbc_engine.sources.slides.slide_parts import check_parts
from rbc_engine.sources.slides.table import READERS, SLIDE_SUFFIXES
from rbc_engine.text import printable

__all__ = ["is_whole_slide", "open_slide"]

_HEADER_BYTES = 16


def is_whole_slide(path: Path) -> bool:
    """Tell whether a file is to be read as a whole slide.

    By its name (SLIDE_SUFFIXES), or because a reader whose magic it has says so. False also for
    what cannot be read: its error comes up as an image's.
    """
    if path.name.lower().endswith(SLIDE_SUFFIXES):
        return True
    try:
        header = read_start(path, _HEADER_BYTES)
    except (ImageError, OSError):
        return False
    return any(
        reader.magic is not None and reader.magic.match(header) and reader.load().is_slide(path)
        for reader in READERS
    )


def open_slide(path: Path, *, name: str) -> Slide:
    """Open a slide with the first reader that knows it.

    name: what error messages call the file.

    Raises ImageError if it cannot be used, in one line.
    """
    label = printable(name)
    try:
        header = read_start(path, _HEADER_BYTES)
        if not header:
            raise ImageError("the file is empty; copy it again")
        check_parts(path)
        return _open(path, header)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from error
    except OSError as error:
        reason = printable(error.strerror or str(error))
        raise ImageError(
            f"{label}: cannot be read: {reason}; check that it exists and may be read"
        ) from error


def _open(path: Path, header: bytes) -> Slide:
    for reader in READERS:
        if reader.magic is not None and not reader.magic.match(header):
            continue
        named = path.name.lower().endswith(reader.suffixes)
        slide = reader.load().open_file(path, named=named)
        if slide is not None:
            return slide
    raise ImageError(
        "no slide that OpenSlide knows, and no TIFF; copy it again, or export it as a pyramidal "
        "TIFF"
    )
