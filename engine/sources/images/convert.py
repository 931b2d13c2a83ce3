"""What the readers of image files share: limits, colours, orientation."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.free_memory import check_memory
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX, MIN_SIDE_PX

__all__ = [
    "ORIENTATION_TAG",
    "check_size",
    "cmyk_to_rgb",
    "exif_orientation",
    "to_rgb",
    "upright",
]

ORIENTATION_TAG = 0x0112
"""Of TIFF, and so of EXIF."""

_DECODED_BYTES_PER_PX = 24
"""At most, while it is decoded: 16-bit samples, as they are stored, in 32 bits, and as RGB."""


def check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"{width}x{height} px, but each side must have at least {MIN_SIDE_PX} px; give the "
            "image itself, not a thumbnail or a crop"
        )
    if max(width, height) > MAX_SIDE_PX:
        raise ImageError(
            f"{width}x{height} px, but no side may exceed {MAX_SIDE_PX} px; cut it into fields, or "
            "save it as TIFF, which is read as a whole slide"
        )
    check_memory(width * height * _DECODED_BYTES_PER_PX, what=f"an image of {width}x{height} px")


def to_rgb(image: Image.Image) -> UInt8:
    """Return RGB in memory of its own. numpy.array(image) would copy all bytes several times."""
    pixels: UInt8 = np.asarray(image if image.mode == "RGB" else image.convert("RGB")).copy()
    return pixels


def cmyk_to_rgb(inks: UInt8, *, raw_mode: str) -> UInt8:
    height, width = inks.shape[:2]
    image = Image.frombytes("CMYK", (width, height), inks.tobytes(), "raw", raw_mode)
    return to_rgb(image)


def upright(pixels: UInt8, orientation: int) -> UInt8:
    """Undo an EXIF orientation 1..8 (any other counts as 1)."""
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    return pixels.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else pixels


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block, 1 (upright) if it is absent or unreadable."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(count):
            position = directory + 2 + 12 * entry
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, position)
            if tag == ORIENTATION_TAG:
                return int(value) if kind == 3 else 1
    except struct.error:  # cut short
        pass
    return 1
