"""JPEG files, read by simplejpeg (libjpeg-turbo)."""

from __future__ import annotations

import struct

import simplejpeg

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.jpeg_scans import check_scans
from rbc_engine.sources.images.convert import check_size, cmyk_to_rgb, exif_orientation, upright
from rbc_engine.types.arrays import UInt8

__all__ = ["decode_jpeg", "plain_jpeg"]

_MAGIC = b"\xff\xd8\xff"


def decode_jpeg(data: bytes) -> UInt8:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    check_size(width, height)
    check_scans(data)
    if colorspace in ("CMYK", "YCCK"):
        # Adobe's JPEGs, and so all that there are, store ink inverted: 255 is none.
        inks = simplejpeg.decode_jpeg(data, "CMYK", strict=True)
        pixels = cmyk_to_rgb(inks, raw_mode="CMYK;I")
    else:
        pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    return upright(pixels, exif_orientation(_jpeg_exif(data)))


def plain_jpeg(data: bytes) -> bool:
    """Return whether the header says a JPEG in grey or colour, of an accepted size."""
    if not data.startswith(_MAGIC):
        return False
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        check_size(width, height)
        check_scans(data)
    except (ValueError, ImageError):
        return False
    return colorspace not in ("CMYK", "YCCK")


def _jpeg_exif(data: bytes) -> bytes:
    """Return the EXIF segment of a JPEG, empty if it has none before its first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        marker, size = struct.unpack_from(">BH", data, position + 1)
        if marker == 0xFF:  # padding
            position += 1
            continue
        segment = data[position + 4 : position + 2 + size]
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            return segment
        position += 2 + size
    return b""
