"""Turn regions into patches: what is classified, and its window in the full-resolution frame.

Red regions of few cells are classified as a whole, larger ones cell by cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rbc_engine.devices.base import Array, Device
from rbc_engine.lanes.stages.group import Grouped
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.types.arrays import Float32
from rbc_engine.types.cells import rows_of_groups
from rbc_engine.types.frames import Frame
from rbc_engine.types.kinds import are_red

__all__ = ["Subjects", "crop_patches", "crop_windows", "over_regions", "subjects_of"]


Values = TypeVar("Values", bound=npt.NDArray[Any])


@dataclass(frozen=True, eq=False, kw_only=True)
class Subjects:
    """Hold the P subjects of one frame, in the order of the regions.

    boxes: float32 [P, 4], x0 y0 x1 y1 in frame px. scores: float32 [P], the detector's.
    region: int64 [P], ascending, the row of the region that each is, or is a cell of.
    """

    boxes: Float32
    scores: Float32
    region: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)


def subjects_of(found: Grouped, *, whole_up_to: int) -> Subjects:
    """Choose what to classify. whole_up_to: cells of a region that is classified as a whole."""
    counts = found.cells.per_region(len(found.boxes))
    red = are_red(found.kinds)
    whole = np.flatnonzero(red & (counts <= whole_up_to))
    apart = np.flatnonzero(red & (counts > whole_up_to))
    rows = rows_of_groups(counts, apart)
    region = np.concatenate([whole, found.cells.region[rows]]).astype(np.int64)
    order = np.argsort(region, kind="stable")
    return Subjects(
        boxes=np.concatenate([found.boxes[whole], found.cells.boxes[rows]])[order],
        scores=np.concatenate([found.scores[whole], found.cells.scores[rows]])[order],
        region=region[order],
    )


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


def over_regions(values: Values, region: npt.NDArray[np.int64], count: int) -> Values:
    """Take the largest of each region's values: [P, ...] to [R, ...], 0 for a region without any.

    region: int64 [P], ascending. count: R.
    """
    largest: Values = np.zeros((count, *values.shape[1:]), values.dtype)  # type: ignore[assignment]
    if len(region):
        begins = np.flatnonzero(np.diff(region, prepend=-1))
        largest[region[begins]] = np.maximum.reduceat(values, begins, axis=0)
    return largest
