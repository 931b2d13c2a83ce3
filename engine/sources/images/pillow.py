"""PNG, BMP and WebP files, read by Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.webp_size import webp_size
from rbc_engine.sources.images.convert import (
    check_bits,
    check_size,
    exif_orientation,
    to_8_bits,
    to_rgb,
    upright,
)
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX

__all__ = ["decode_bmp", "decode_png", "decode_webp"]


def decode_png(data: bytes) -> UInt8:
    # The classes themselves, not Image.open: it warns of large images, by a filter that threads
    # share.
    with PngImageFile(io.BytesIO(data)) as image:
        _load(image)
        if image.mode.startswith("I"):
            gray = np.asarray(image).astype(np.uint16)[..., np.newaxis]
            pixels = np.repeat(to_8_bits(gray), 3, axis=2)
        else:
            pixels = to_rgb(image)
            bits_per_sample = data[24]
            if bits_per_sample == 16:
                check_bits(int(pixels.max()) << 8)
        return upright(pixels, exif_orientation(image.info.get("exif", b"")))


def decode_bmp(data: bytes) -> UInt8:
    with BmpImageFile(io.BytesIO(data)) as image:
        _load(image)
        return to_rgb(image)


def decode_webp(data: bytes) -> UInt8:
    size = webp_size(data)
    if size is not None:
        check_size(*size)
    try:
        image = WebPImageFile(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError(f"larger than {MAX_SIDE_PX} px a side; cut it into fields") from error
    with image:
        _load(image)
        pixels = to_rgb(image)
        return upright(pixels, exif_orientation(image.info.get("exif", b"")))


def _load(image: ImageFile) -> None:
    check_size(*image.size)
    count = getattr(image, "n_frames", 1)
    if count > 1:
        raise ImageError(f"an animation of {count} images; export each as a file of its own")
    image.load()
