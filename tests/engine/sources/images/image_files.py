"""Image files for the tests of reading, whole and damaged, made in memory."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import decode_image


def smear(height: int = 48, width: int = 64, *, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: smooth blobs, so that JPEG has something like a smear to code."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def pillow_bytes(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff_bytes(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def png_bytes(width: int, height: int, *, bits: int, colour_type: int, pixels: bytes) -> bytes:
    """A PNG written by hand: Pillow writes no 16-bit colour, and no bombs."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    scanlines = zlib.compress(pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", scanlines) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def retag(tiff: bytes, **values: object) -> bytes:
    """The TIFF with tags of its first page overwritten."""
    file = io.BytesIO(tiff)
    with tifffile.TiffFile(file) as opened:
        tags = opened.pages[0].tags
        for name, value in values.items():
            tags[name].overwrite(value)
        return file.getvalue()


def error_of(data: bytes, name: str = "field 1.img") -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, name=name)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert "; " in message, "every message ends with a remedy"
    return message
