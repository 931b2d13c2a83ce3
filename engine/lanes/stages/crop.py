"""Turn regions into patches: a window around each region, cut from the full-resolution frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.devices.base import Array, Device
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.types.arrays import Float32
from rbc_engine.types.frames import Frame

__all__ = ["crop_patches", "crop_windows"]


def crop_windows(boxes: Float32, *, canvas_scale: float, settings: ClassifierSettings) -> Float32:
    """Return square windows around the centres of boxes.

    The window has the same side for every cell, `window_canvas_px` on the detector's canvas, so
    that a macrocyte stays larger in its patch than a microcyte; only a region too large for it gets
    a larger one.

    boxes: float32 [R, 4], x0 y0 x1 y1 in frame pixels.
    canvas_scale: canvas px per frame px.

    Returns float32 [R, 4] in frame pixels; windows may leave the frame.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    long_sides = np.max(boxes[:, 2:] - boxes[:, :2], axis=1)
    sides = np.maximum(long_sides * np.float32(settings.window_margin), np.float32(1))
    if settings.window_canvas_px is not None:
        sides = np.maximum(sides, np.float32(settings.window_canvas_px / canvas_scale))
    half = (sides / 2)[:, None]
    return np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)


def crop_patches(
    device: Device[Array],
    frames: Sequence[Frame],
    windows: Sequence[Float32],
    *,
    settings: ClassifierSettings,
    threads: int,
) -> Array:
    """Cut the patches of all regions of all frames in one pass.

    windows: for each frame, float32 [R, 4] in frame pixels.

    Returns [sum of R, 3, patch_px, patch_px] on the device, normalised, in the order of the
    windows: float32 on the host, fp16 on a GPU.
    """
    counts = [len(w) for w in windows]
    return device.ops.crop_resize(
        [device.upload(frame.pixels) for frame in frames],
        np.concatenate(list(windows)),
        np.repeat(np.arange(len(frames), dtype=np.int32), counts),
        size_px=settings.patch_px,
        mean=settings.mean_rgb,
        std=settings.std_rgb,
        threads=threads,
    )
