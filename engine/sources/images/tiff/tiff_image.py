"""TIFF files that hold one image, read by tifffile."""

from __future__ import annotations

import io
import logging
import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.bounded_tiff import open_tiff
from rbc_engine.sources.images.base import Picture
from rbc_engine.sources.images.bit_depth import to_8_bits
from rbc_engine.sources.images.convert import ORIENTATION_TAG, check_size, cmyk_to_rgb, upright
from rbc_engine.sources.images.jpeg import jpeg_pixels
from rbc_engine.sources.images.tiff.tiff_pages import image_pages
from rbc_engine.sources.stated_scale import tiff_scale
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX

__all__ = ["decode_tiff"]

_JPEG = 7
_COMPRESSIONS = {
    1: "none",
    5: "LZW",
    _JPEG: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
}
"""Those whose decoders never write more than a strip holds; of JPEG the header is checked first."""
_GRAY_INVERTED, _GRAY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_SAMPLES = {
    _GRAY_INVERTED: (1, 2),
    _GRAY: (1, 2),
    _RGB: (3, 4),
    _PALETTE: (1,),
    _CMYK: (4, 5),
    _YCBCR: (3,),
}
"""Samples a pixel, without and with alpha, for each photometric interpretation that is read."""
_MOST_VALUE_TAGS = (281, 341)  # MaxSampleValue, SMaxSampleValue
_NOT_YCBCR = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"

# tifffile logs what it finds wrong; with no handler anywhere, Python would print it beside our own
# message.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def decode_tiff(data: bytes) -> Picture:
    notes: list[str] = []
    with open_tiff(io.BytesIO(data)) as tiff:
        pages = image_pages(tiff)
        for page in pages:
            _check_page(page, file_bytes=len(data))
        first = pages[0]
        samples = np.concatenate([_samples(page, data) for page in pages], axis=2)
        bits = _stated_bits(tiff, first)
        pixels, assumed = _to_rgb(first, samples, bits=bits, colours=len(pages))
        scale = tiff_scale(tiff, first, series=0, notes=notes)
        orientation = first.tags.valueof(ORIENTATION_TAG, 1)
        return Picture(pixels=upright(pixels, orientation), scale=scale, notes=[*assumed, *notes])


def _check_page(page: Any, *, file_bytes: int) -> None:
    check_size(page.imagewidth, page.imagelength)
    if page.dtype not in (np.uint8, np.uint16):
        kind = page.dtype or f"{page.bitspersample}-bit"
        raise ImageError(f"{kind} samples; export it with unsigned samples of 8 or 16 bits")
    ycbcr = page.photometric == _YCBCR and page.compression != _JPEG
    samples = _SAMPLES.get(page.photometric, ())
    if page.imagedepth != 1 or page.samplesperpixel not in samples or ycbcr:
        photometric = getattr(page.photometric, "name", page.photometric)
        raise ImageError(
            f"photometric {photometric}, {page.samplesperpixel} samples a pixel, depth "
            f"{page.imagedepth}; export it as an RGB or grayscale image"
        )
    if page.compression not in _COMPRESSIONS:
        compression = getattr(page.compression, "name", page.compression)
        readable = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(
            f"compression {compression}; export it with another ({readable}), or as PNG or JPEG"
        )
    if page.is_tiled and max(page.tilewidth, page.tilelength) > MAX_SIDE_PX:
        raise ImageError(
            f"tiles of {page.tilewidth}x{page.tilelength} px, more than {MAX_SIDE_PX} px a side; "
            "export it again"
        )
    # tifffile fills missing strips with zeros.
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    whole = all(start > 0 and 0 < size <= file_bytes - start for start, size in segments)
    if len(segments) != math.prod(page.chunked) or not whole:
        raise ImageError("damaged TIFF (pixel data are missing); copy or export it again")


def _samples(page: Any, data: bytes) -> npt.NDArray[np.unsignedinteger]:
    """Return uint8 or uint16 [H, W, samples a pixel], as stored; JPEG as RGB or grey."""
    if page.compression == _JPEG:
        return _jpeg_samples(page, data)
    planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # [planes, H, W, samples]
    samples: npt.NDArray[np.unsignedinteger] = np.moveaxis(planes, 0, 2).reshape(
        page.imagelength, page.imagewidth, -1
    )
    return samples


def _jpeg_samples(page: Any, data: bytes) -> UInt8:
    """Read strips or tiles that are JPEGs, their tables perhaps elsewhere, as strictly as files."""
    stored = int(page.samplesperpixel)
    if stored not in (1, 3) or page.bitspersample != 8 or int(page.planarconfig) != 1:
        raise ImageError(
            f"JPEG in a TIFF with {stored} samples of {page.bitspersample} bits; export it without "
            "compression, or as PNG or JPEG"
        )
    height, width = page.imagelength, page.imagewidth
    wide = page.tilewidth if page.is_tiled else width
    high = page.tilelength if page.is_tiled else min(int(page.rowsperstrip), height)
    pixels = np.empty((height, width, 3), np.uint8)
    tables = bytes(page.jpegtables or b"")
    across = -(-width // wide)
    for index, (start, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        y, x = index // across * high, index % across * wide
        part = pixels[y : y + high, x : x + wide]
        stream = _jpeg_stream(data[start : start + size], tables, rgb=page.photometric == _RGB)
        decoded = jpeg_pixels(stream, most_hw=(high, wide))
        if decoded.shape[0] < part.shape[0] or decoded.shape[1] < part.shape[1]:
            raise ImageError("damaged TIFF (a JPEG in it is too small); copy or export it again")
        part[:] = decoded[: part.shape[0], : part.shape[1]]
    return pixels[..., :stored]


def _jpeg_stream(segment: bytes, tables: bytes, *, rgb: bool) -> bytes:
    """Make a JPEG of its own. rgb: its samples are RGB, which nothing in it needs to say."""
    if not segment.startswith(b"\xff\xd8\xff"):
        raise ImageError("damaged TIFF (a JPEG in it does not begin); copy or export it again")
    within = tables[2:-2] if tables.startswith(b"\xff\xd8") else b""
    return b"".join((b"\xff\xd8", _NOT_YCBCR if rgb else b"", within, segment[2:]))


def _stated_bits(tiff: Any, page: Any) -> int | None:
    """Return how many bits of a sample are used, if the file says so."""
    stored = 8 * np.dtype(page.dtype).itemsize
    if page.bitspersample < stored:
        return int(page.bitspersample)
    if stored == 8:
        return None
    if tiff.is_ome:
        found = re.search(r'\bSignificantBits="(\d{1,2})"', str(tiff.ome_metadata or "")[: 1 << 22])
        if found and 8 <= int(found[1]) < stored:
            return int(found[1])
    for tag in _MOST_VALUE_TAGS:
        value = page.tags.valueof(tag)
        most = max(value) if isinstance(value, tuple) and value else value
        if isinstance(most, int) and most in (1023, 4095, 16383):
            return most.bit_length()
    return None


def _to_rgb(
    page: Any, samples: npt.NDArray[np.unsignedinteger], *, bits: int | None, colours: int
) -> tuple[UInt8, list[str]]:
    """Convert to RGB. samples: [H, W, samples]. colours: pages that they come from, 1 or 3."""
    if page.photometric == _PALETTE:
        table = np.asarray(page.colormap, np.uint16)
        # The high byte: some programs write 255 as 65535, some as 65280, some as 255.
        levels = table if table.max() < 256 else table >> 8
        return np.take(levels.astype(np.uint8).T, samples[..., 0], axis=0), []
    if colours == 3:
        pixels, notes = to_8_bits(samples, stated_bits=bits)
        return 255 - pixels if page.photometric == _GRAY_INVERTED else pixels, notes
    count = {_RGB: 3, _YCBCR: 3, _CMYK: 4}.get(page.photometric, 1)
    pixels, notes = to_8_bits(samples[..., :count], stated_bits=bits)
    if page.photometric == _CMYK:
        return cmyk_to_rgb(pixels, raw_mode="CMYK"), notes
    if count == 3:
        return pixels, notes
    grey = 255 - pixels if page.photometric == _GRAY_INVERTED else pixels
    return np.repeat(grey, 3, axis=2), notes
