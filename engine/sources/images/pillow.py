"""BMP and WebP files, read by Pillow."""

from __future__ import annotations

import io

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.webp_size import webp_size
from rbc_engine.sources.images.base import Picture
from rbc_engine.sources.images.convert import check_size, exif_orientation, to_rgb, upright
from rbc_engine.types.frames import MAX_SIDE_PX

__all__ = ["decode_bmp", "decode_webp"]


def decode_bmp(data: bytes) -> Picture:
    # The classes themselves: Image.open warns of large images, by a filter that threads share.
    with BmpImageFile(io.BytesIO(data)) as image:
        _load(image)
        return Picture(pixels=to_rgb(image))


def decode_webp(data: bytes) -> Picture:
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
        orientation = exif_orientation(image.info.get("exif", b""))
        return Picture(pixels=upright(pixels, orientation))


def _load(image: ImageFile) -> None:
    check_size(*image.size)
    count = getattr(image, "n_frames", 1)
    if count > 1:
        raise ImageError(f"an animation of {count} images; export each as a file of its own")
    image.load()
