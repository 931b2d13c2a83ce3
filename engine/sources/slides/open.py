"""Tells whole slides from images, and opens them with the reader that fits."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import MAX_FILE_BYTES
from rbc_engine.sources.slides.base import Slide
from rbc_engine.text import printable
from rbc_engine.types.frames import MAX_SIDE_PX

__all__ = ["VENDOR_SUFFIXES", "is_whole_slide", "open_slide"]

VENDOR_SUFFIXES = (*(".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi"),)
"""Which files of a folder are slides by their name. Of a .tif or .tiff its header decides: see is_whole_slide."""

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_whole_slide(path: Path) -> bool:
    """Whether a file is to be read as a whole slide: by its name (VENDOR_SUFFIXES), or as a TIFF that is a pyramid of
    several levels, or too large for an image. False also for what cannot be read: its error comes up as an image's."""
    name = path.name.lower()
    if name.endswith(VENDOR_SUFFIXES):
        return True
    try:
        if not path.is_file():  # opening a pipe would wait for whoever writes into it
            return False
        with path.open("rb") as file:
            if file.read(4) not in _TIFF_MAGIC:
                return False
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                return True
    except OSError:
        return False
    from rbc_engine.sources.slides.tiff import slide_levels

    levels = slide_levels(path)
    return len(levels) > 1 or any(max(level) > MAX_SIDE_PX for level in levels)


def open_slide(path: Path, *, name: str) -> Slide:
    """Opens a slide: of a vendor's format by OpenSlide, a generic or OME TIFF by tifffile.

    name: what error messages call the file.

    Raises ImageError if it cannot be used, in one line.
    """
    label = printable(name)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file; give a slide")
        if not status.st_size:
            raise ImageError("the file is empty; copy it again")
        with path.open("rb") as file:
            tiff = file.read(4) in _TIFF_MAGIC
        return _open(path, tiff=tiff)
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from error
    except OSError as error:
        reason = printable(error.strerror or str(error))
        raise ImageError(
            f"{label}: cannot be read: {reason}; check that it exists and may be read"
        ) from error


def _open(path: Path, *, tiff: bool) -> Slide:
    from rbc_engine.sources.slides.openslide import openslide_vendor
    from rbc_engine.sources.slides.tiff import TiffSlide

    named = path.name.lower().endswith(VENDOR_SUFFIXES)
    vendor = openslide_vendor(path, needed=named)
    if vendor is not None:
        from rbc_engine.sources.slides.openslide import OpenSlideSlide

        return OpenSlideSlide(path, vendor=vendor)
    if not tiff:
        raise ImageError(
            "no slide that OpenSlide knows, and no TIFF; copy it again, or export it as a pyramidal TIFF"
        )
    return TiffSlide(path)
