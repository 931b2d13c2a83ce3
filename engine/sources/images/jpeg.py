"""JPEG files, read by simplejpeg, and by imagecodecs where its library is too strict; both are
libjpeg-turbo, and give the same pixels.

A file is read if every block of it was decoded. libjpeg warns of more than that: of spare bytes
between segments, of a missing end. Such a file is put in order, and decoded again.
"""

from __future__ import annotations

import re
import struct

import imagecodecs
import numpy as np
import simplejpeg

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.jpeg_scans import check_scans
from rbc_engine.sources.images.base import Picture
from rbc_engine.sources.images.convert import check_size, cmyk_to_rgb, exif_orientation, upright
from rbc_engine.sources.images.jpeg_segments import JpegParts, jpeg_parts
from rbc_engine.sources.stated_scale import StatedScale, plausible_scale
from rbc_engine.types.arrays import UInt8

__all__ = ["decode_jpeg", "jpeg_pixels", "jpeg_scale", "plain_jpeg"]

_MAGIC = b"\xff\xd8\xff"
_SPARE = re.compile(r"(\d+) extraneous bytes before marker")
_MOST_SPARE_BYTES = 16
"""Of anything but zeros. A decoder that lost its way in damaged data leaves thousands over."""
_ODD_SAMPLING = "subsampling"
_CONTINUATIONS = (bytes(range(1, 97, 3)), b"\xaa\x15" * 16)
"""What coded data might go on with: if the pixels do not care, nothing of them was missing."""
_UM_PER_DENSITY_UNIT = {1: 25_400.0, 2: 10_000.0}


def decode_jpeg(data: bytes) -> Picture:
    parts: JpegParts | None = None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        check_size(width, height)
        check_scans(data)
        pixels = _strict(data)
    except ValueError as error:
        parts = jpeg_parts(data)
        check_size(parts.width, parts.height)
        check_scans(parts.joined())
        pixels = _mended(parts, first=str(error))
    exif, jfif = (parts.exif, parts.jfif) if parts else _header_segments(data)
    return Picture(pixels=upright(pixels, exif_orientation(exif)), scale=_density(jfif))


def jpeg_pixels(data: bytes, *, most_hw: tuple[int, int]) -> UInt8:
    """Decode a JPEG that is a part of another file, as it is stored.

    Raises ImageError if blocks are missing, or if it is larger than most_hw.
    """
    parts = jpeg_parts(data)
    if parts.height > most_hw[0] or parts.width > most_hw[1]:
        raise _missing(f"{parts.width}x{parts.height} px, more than there is room for")
    check_scans(data)
    try:
        return _strict(data)
    except ValueError as error:
        return _mended(parts, first=str(error))


def jpeg_scale(data: bytes) -> StatedScale | None:
    """Return the scale that a JPEG states."""
    return _density(_header_segments(data)[1])


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


def _strict(data: bytes) -> UInt8:
    """Decode; raise ValueError for whatever libjpeg warns of."""
    _, _, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    if colorspace in ("CMYK", "YCCK"):
        # Adobe's JPEGs, and so all that there are, store ink inverted: 255 is none.
        inks = simplejpeg.decode_jpeg(data, "CMYK", strict=True)
        return cmyk_to_rgb(inks, raw_mode="CMYK;I")
    pixels: UInt8 = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    return pixels


def _mended(parts: JpegParts, *, first: str) -> UInt8:
    """Decode the parts of a file that libjpeg warned of. first: its warning.

    Raises ImageError if blocks are missing.
    """
    if not parts.whole_scans:
        raise _missing("scans are missing")
    reason = first
    for data in (parts.joined(), parts.joined(strip=True)):
        try:
            return _strict(data)
        except ValueError as error:
            reason = str(error)
            if _may_be_whole(reason, parts):
                return _lenient(parts)
    raise _missing(" ".join(reason.split()))


def _may_be_whole(warning: str, parts: JpegParts) -> bool:
    spare = _SPARE.search(warning)
    if spare is None:
        return _ODD_SAMPLING in warning and parts.components in (1, 3)
    few = int(spare[1]) <= _MOST_SPARE_BYTES
    return parts.components in (1, 3) and (
        few or not any(parts.pieces[parts.coded[-1]][-int(spare[1]) :])
    )


def _lenient(parts: JpegParts) -> UInt8:
    """Decode whatever libjpeg warns of, and make sure that all of it came from the file."""
    try:
        pixels = imagecodecs.jpeg8_decode(parts.joined())
        for continuation in _CONTINUATIONS:
            other = imagecodecs.jpeg8_decode(parts.joined(after_coded=continuation))
            if not np.array_equal(pixels, other):
                raise _missing("blocks are missing")
    except imagecodecs.Jpeg8Error as error:
        raise _missing(" ".join(str(error).split())) from error
    if pixels.shape[:2] != (parts.height, parts.width):
        raise _missing("its size is not that of its header")
    rgb: UInt8 = np.repeat(pixels[..., np.newaxis], 3, axis=2) if pixels.ndim == 2 else pixels
    return rgb


def _missing(why: str) -> ImageError:
    return ImageError(f"damaged JPEG ({why:.200}); copy or export it again")


def _header_segments(data: bytes) -> tuple[bytes, bytes]:
    """The EXIF and the JFIF segment of a JPEG, each empty if it has none before its first scan."""
    found = {b"Exif": b"", b"JFIF": b""}
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        marker, size = struct.unpack_from(">BH", data, position + 1)
        if marker == 0xFF:  # padding
            position += 1
            continue
        segment = data[position + 4 : position + 2 + size]
        kind = {0xE0: b"JFIF", 0xE1: b"Exif"}.get(marker)
        if kind is not None and segment.startswith(kind + b"\0") and not found[kind]:
            found[kind] = segment
        position += 2 + size
    return found[b"Exif"], found[b"JFIF"]


def _density(jfif: bytes) -> StatedScale | None:
    if len(jfif) < 12:
        return None
    unit, x, y = struct.unpack_from(">BHH", jfif, 7)
    um = _UM_PER_DENSITY_UNIT.get(unit)
    if um is None or not x or not y:
        return None
    return plausible_scale((um / x, um / y), by="density of the JPEG")
