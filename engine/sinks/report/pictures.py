"""Make small JPEGs of fields and of single regions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from rbc_engine.types.arrays import UInt8

__all__ = ["FIELD_LONG_SIDE_PX", "PATCH_PX", "field_jpeg", "patch_jpeg"]

FIELD_LONG_SIDE_PX = 1024
"""Longer sides are reduced to this."""
PATCH_PX = 72
_FIELD_QUALITY = 70
_PATCH_QUALITY = 80
_PATCH_MARGIN = 1.4
"""Side of the window around a region, in its long sides."""


def field_jpeg(pixels: UInt8) -> bytes:
    """Return the frame, uint8 [H, W, 3], no larger than FIELD_LONG_SIDE_PX."""
    height, width = pixels.shape[:2]
    scale = min(1.0, FIELD_LONG_SIDE_PX / max(height, width))
    # Of very large frames every n-th pixel is enough, and takes no copy of the whole.
    step = max(1, math.floor(1 / (4 * scale)))
    reduced = np.ascontiguousarray(pixels[::step, ::step])
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        reduced = np.asarray(Image.fromarray(reduced).resize(size, Image.Resampling.BOX))
    return _jpeg(reduced, _FIELD_QUALITY)


def patch_jpeg(pixels: UInt8, box: npt.NDArray[np.float32]) -> bytes:
    """Return a square around a region, PATCH_PX wide. box: float [4], x0 y0 x1 y1 in px; may leave
    the frame.
    """
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    side = min(_PATCH_MARGIN * max(x1 - x0, y1 - y0, 1.0), height, width)
    # Moved into the frame rather than filled up beyond its edge.
    left = math.floor(min(max((x0 + x1 - side) / 2, 0), width - side))
    top = math.floor(min(max((y0 + y1 - side) / 2, 0), height - side))
    across = max(1, math.ceil(side))
    window = Image.fromarray(np.ascontiguousarray(pixels[top : top + across, left : left + across]))
    patch = window.resize((PATCH_PX, PATCH_PX), Image.Resampling.BICUBIC)
    return _jpeg(np.asarray(patch), _PATCH_QUALITY)


def _jpeg(pixels: UInt8, quality: int) -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420")
    return encoded
