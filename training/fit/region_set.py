"""Cut regions of labelled fields as patches by the engine's own window, crop and resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.devices.cpu import ops
from rbc_engine.lanes.stages.crop import crop_windows
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["RegionSet", "load_regions"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionSet:
    """Hold the known regions of some fields, with the pixels from which they are cut.

    frames: N arrays uint8 [H, W, 3].
    frame_index: int32 [R], which frame each region is in.
    canvas_scales: float32 [R], canvas px per frame px.
    boxes: float32 [R, 4], frame pixels.
    types: bool [R, T].
    cells: int64 [R].
    groups: R smear groups.
    """

    frames: list[UInt8]
    frame_index: npt.NDArray[np.int32]
    canvas_scales: Float32
    boxes: Float32
    types: npt.NDArray[np.bool_]
    cells: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.boxes)

    def windows(self, chosen: npt.NDArray[np.int64], settings: ClassifierSettings) -> Float32:
        """Return the windows that the engine would cut around the chosen regions, float32 [R,
        4].
        """
        windows = [
            crop_windows(
                self.boxes[i : i + 1], canvas_scale=float(self.canvas_scales[i]), settings=settings
            )
            for i in chosen
        ]
        return np.concatenate(windows) if windows else np.zeros((0, 4), np.float32)

    def patches(
        self, chosen: npt.NDArray[np.int64], settings: ClassifierSettings, *, threads: int
    ) -> Float32:
        """Return the chosen regions as the engine's classifier would see them, float32 [R, 3, P,
        P], normalised.
        """
        windows = self.windows(chosen, settings)
        size_px = settings.patch_px
        return self.cut(chosen, windows, size_px=size_px, settings=settings, threads=threads)

    def cut(
        self,
        chosen: npt.NDArray[np.int64],
        windows: Float32,
        *,
        size_px: int,
        settings: ClassifierSettings,
        threads: int,
    ) -> Float32:
        """Cut patches, float32 [R, 3, size_px, size_px], normalised."""
        used, index = np.unique(self.frame_index[chosen], return_inverse=True)
        return ops.crop_resize(
            [self.frames[i] for i in used],
            windows,
            index.astype(np.int32),
            size_px=size_px,
            mean=settings.mean_rgb,
            std=settings.std_rgb,
            threads=threads,
        )


def load_regions(fields: Sequence[LabelledField], *, short_side_px: int) -> RegionSet:
    """Decode the fields that have known regions, and gather those regions.

    short_side_px: of the detector's canvas, which sets the scale of the windows.
    """
    fields = [field for field in fields if field.known.any()]
    if not fields:
        raise ValueError("no field has a region whose types are known; label some cells first")
    frames = [decode_image(field.path.read_bytes(), name=str(field.path)) for field in fields]
    counts = [int(field.known.sum()) for field in fields]
    scales = [short_side_px / min(frame.shape[:2]) for frame in frames]
    return RegionSet(
        frames=frames,
        frame_index=np.repeat(np.arange(len(fields)), counts).astype(np.int32),
        canvas_scales=np.repeat(scales, counts).astype(np.float32),
        boxes=np.concatenate([field.boxes[field.known] for field in fields]),
        types=np.concatenate([field.types[field.known] for field in fields]),
        cells=np.concatenate([field.cells[field.known] for field in fields]),
        groups=np.repeat([field.group for field in fields], counts),
    )
