"""The pixels of regions as small JPEGs, for the formats that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import simplejpeg

from rbc_engine.lanes.canvas import canvas_scale
from rbc_engine.lanes.stages.crop import crop_windows
from rbc_engine.packs.pack import Pack
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.results import FieldResult

__all__ = ["cut_patches"]

_JPEG_QUALITY = 95


def cut_patches(result: FieldResult, pack: Pack) -> Iterator[bytes]:
    """Cut the window around each red region of a field, in order, at the image's resolution.

    Of a region classified as a whole, the window is what the classifier saw.

    A window that leaves the image is cut at its edge. JPEG of quality 95 without chroma
    subsampling: on photographs of smears within a few levels of the image's pixels, and a tenth of
    the time of PNG. Encoded as they are iterated, in any thread, most of the time without the
    interpreter's lock.

    Raises ValueError, at once, if the result does not carry its frame.
    """
    if result.regions is None:
        return iter(())
    if result.frame is None:
        raise ValueError("patches need results that carry their frame (got none)")
    frame = result.frame
    settings = pack.manifest
    scale = canvas_scale(
        (frame.height, frame.width),
        pixel_um=result.um_per_px or frame.pixel_um,
        settings=settings.detector,
    )
    boxes = result.regions.boxes[result.regions.red]
    windows = crop_windows(boxes, canvas_scale=scale, settings=settings.classifier)
    corners = np.concatenate([np.floor(windows[:, :2]), np.ceil(windows[:, 2:])], axis=1)
    # At least one pixel of the image, wherever a box lies.
    last = np.array([frame.width, frame.height], np.float32) - 1
    low = np.clip(corners[:, :2], 0, last)
    high = np.clip(corners[:, 2:], low + 1, last + 1)
    return _encode(frame.pixels, np.concatenate([low, high], axis=1).astype(np.int64).tolist())


def _encode(pixels: UInt8, boxes: Sequence[tuple[int, int, int, int]]) -> Iterator[bytes]:
    for x0, y0, x1, y1 in boxes:
        patch = np.ascontiguousarray(pixels[y0:y1, x0:x1])
        yield simplejpeg.encode_jpeg(patch, quality=_JPEG_QUALITY, colorsubsampling="444")
