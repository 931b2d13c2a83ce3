"""TIFF files that hold one image, read by tifffile."""

from __future__ import annotations

import io
import logging
import math
from itertools import islice

import numpy as np
import numpy.typing as npt
import tifffile

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.bounded_tiff import open_tiff
from rbc_engine.sources.images.convert import (
    ORIENTATION_TAG,
    check_bits,
    check_size,
    cmyk_to_rgb,
    to_8_bits,
    upright,
)
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX

__all__ = ["decode_tiff"]

_MAX_PAGES = 32
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
"""Those whose decoders never write more than a strip holds."""
_GRAY_INVERTED, _GRAY, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_SAMPLES = {_GRAY_INVERTED: (1, 2), _GRAY: (1, 2), _RGB: (3, 4), _PALETTE: (1,), _CMYK: (4, 5)}
"""Samples a pixel, without and with alpha, for each photometric interpretation that is read."""

# tifffile logs what it finds wrong; with no handler anywhere, Python would print it beside our own
# message.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def decode_tiff(data: bytes) -> UInt8:
    with open_tiff(io.BytesIO(data)) as tiff:
        pages = list(islice(tiff.pages, _MAX_PAGES))
        full_size = [page for page in pages if not page.is_reduced]
        if len(full_size) != 1:
            raise ImageError(
                f"holds {len(full_size)} full-size images, but a TIFF file must hold one; export "
                "each as a file of its own, or open it as a whole slide"
            )
        page = full_size[0]
        _check_page(page, file_bytes=len(data))
        planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # [planes, H, W, samples]
        samples = np.moveaxis(planes, 0, 2).reshape(page.imagelength, page.imagewidth, -1)
        return upright(_page_to_rgb(page, samples), page.tags.valueof(ORIENTATION_TAG, 1))


def _check_page(page: tifffile.TiffPage, *, file_bytes: int) -> None:
    check_size(page.imagewidth, page.imagelength)
    if page.dtype not in (np.uint8, np.uint16):
        kind = page.dtype or f"{page.bitspersample}-bit"
        raise ImageError(f"{kind} samples; export it with unsigned samples of 8 or 16 bits")
    if page.imagedepth != 1 or page.samplesperpixel not in _SAMPLES.get(page.photometric, ()):
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


def _page_to_rgb(page: tifffile.TiffPage, samples: npt.NDArray[np.unsignedinteger]) -> UInt8:
    """Convert a page to RGB. samples: uint8 or uint16 [H, W, samples a pixel], as stored."""
    if page.photometric == _PALETTE:
        colours = np.asarray(page.colormap, np.uint16)
        check_bits(int(colours.max()))
        # The high byte: some programs write 255 as 65535, some as 65280.
        return np.take((colours >> 8).astype(np.uint8).T, samples[..., 0], axis=0)
    colour_count = {_RGB: 3, _CMYK: 4}.get(page.photometric, 1)
    pixels = to_8_bits(samples[..., :colour_count])
    if page.photometric == _CMYK:
        return cmyk_to_rgb(pixels, raw_mode="CMYK")
    if page.photometric == _RGB:
        return pixels
    return np.repeat(255 - pixels if page.photometric == _GRAY_INVERTED else pixels, 3, axis=2)
