"""PNG files: their chunks are checked here, and their pixels decoded by Pillow or imagecodecs.

Every chunk has its length and its checksum, so that damage is always found. Decoders get only what
pixels need: texts and colour profiles, which may be large, stay out.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
from PIL.PngImagePlugin import PngImageFile

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.base import Picture
from rbc_engine.sources.images.bit_depth import to_8_bits
from rbc_engine.sources.images.convert import check_size, exif_orientation, to_rgb, upright
from rbc_engine.sources.stated_scale import StatedScale, plausible_scale

__all__ = ["decode_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FOR_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_HEADER = struct.Struct(">IIBBBBB")


def decode_png(data: bytes) -> Picture:
    kept: list[bytes] = []
    exif, scale = b"", None
    width = height = bits = 0
    order: list[bytes] = []
    for kind, body, whole in _chunks(data):
        if kind in (b"acTL", b"fcTL", b"fdAT"):
            raise ImageError("an animation; export each image as a file of its own")
        order += [kind] if order[-1:] != [kind] else []
        if kind == b"IHDR":
            if len(body) != _HEADER.size or kept:
                raise _damaged("its header is not where it must be")
            width, height, bits = _HEADER.unpack(body)[:3]
            check_size(width, height)
        elif kind == b"eXIf":
            exif = body
        elif kind == b"pHYs":
            scale = _physical(body)
        if kind in _FOR_PIXELS:
            kept.append(whole)
        elif not kind[0] & 0x20:
            raise _damaged(f"a critical chunk {kind!r} that is none of PNG's")
    if order[:1] != [b"IHDR"] or order[-1:] != [b"IEND"] or order.count(b"IDAT") != 1:
        raise _damaged("parts are missing, or not in order")
    plain = b"".join((_SIGNATURE, *kept))
    if bits == 16:
        samples = imagecodecs.png_decode(plain)
        samples = samples[..., np.newaxis] if samples.ndim == 2 else samples
        colours = samples[..., :3] if samples.shape[2] >= 3 else samples[..., :1]
        pixels, notes = to_8_bits(colours)
        pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    else:
        notes = []
        # The class itself: Image.open warns of large images, by a filter that threads share.
        with PngImageFile(io.BytesIO(plain)) as image:
            image.load()
            pixels = to_rgb(image)
    return Picture(pixels=upright(pixels, exif_orientation(exif)), scale=scale, notes=notes)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, content and bytes of every chunk up to the end; what follows it is no part of a PNG."""
    position = len(_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise _damaged("cut short")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise _damaged("cut short, or the length of a chunk is wrong")
        whole = data[position:end]
        (checksum,) = struct.unpack_from(">I", whole, 8 + length)
        if zlib.crc32(whole[4:-4]) != checksum:
            raise _damaged(f"wrong checksum of chunk {kind!r}")
        yield kind, whole[8:-4], whole
        position = end


def _physical(body: bytes) -> StatedScale | None:
    """Of a pHYs chunk: pixels a metre."""
    if len(body) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", body)
    if unit != 1 or not x or not y:
        return None
    return plausible_scale((1e6 / x, 1e6 / y), by="pixels per metre of the PNG")


def _damaged(why: str) -> ImageError:
    return ImageError(f"damaged PNG ({why}); copy or export it again")
