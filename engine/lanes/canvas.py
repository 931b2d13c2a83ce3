"""Compute the size of a frame on the detector's canvas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import ImageError
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.types.frames import CanvasFit

__all__ = ["MAX_CANVAS_SIDE_PX", "at_border", "canvas_at", "canvas_scale", "fit_canvas"]

MAX_CANVAS_SIDE_PX = 4096
"""A larger canvas would take gigabytes of feature maps."""

# A box this close to the edge of the frame, in canvas px, touches it: the detector is no more
# precise.
_BORDER_CANVAS_PX = 1.5


def canvas_scale(
    frame_hw: tuple[int, int], *, pixel_um: float | None, settings: DetectorSettings
) -> float:
    """Return canvas px per frame px.

    It makes the frame's short side `short_side_px`; if both the frame's µm per pixel and the pack's
    own are known, it makes a cell as large as those the pack was trained on.
    """
    if pixel_um is not None and settings.um_per_canvas_px is not None:
        return pixel_um / settings.um_per_canvas_px
    return settings.short_side_px / min(frame_hw)


def fit_canvas(
    frame_hw: tuple[int, int], *, pixel_um: float | None, settings: DetectorSettings
) -> CanvasFit:
    """Return the canvas of a frame, at its canvas_scale. Sizes are rounded down, as in
    torchvision's GeneralizedRCNNTransform.

    Raises ImageError if the canvas would be larger than MAX_CANVAS_SIDE_PX, or empty.
    """
    scale = canvas_scale(frame_hw, pixel_um=pixel_um, settings=settings)
    return canvas_at(frame_hw, scale=scale, settings=settings)


def canvas_at(frame_hw: tuple[int, int], *, scale: float, settings: DetectorSettings) -> CanvasFit:
    """Return the canvas of a frame at a scale, canvas px per frame px; see fit_canvas."""
    resized = (int(frame_hw[0] * scale), int(frame_hw[1] * scale))
    step = settings.strides_px[-1]
    canvas = (-(-resized[0] // step) * step, -(-resized[1] // step) * step)
    if max(canvas) > MAX_CANVAS_SIDE_PX or min(resized) < step:
        raise ImageError(
            f"a frame of {frame_hw[1]}x{frame_hw[0]} px at {scale:.3g} canvas px per pixel makes a "
            f"canvas of {resized[1]}x{resized[0]} px, outside {step}..{MAX_CANVAS_SIDE_PX}; cut "
            f"the image into fields, or correct --um-per-px"
        )
    return CanvasFit(resized_hw=resized, canvas_hw=canvas, scale=scale)


def at_border(
    boxes: npt.NDArray[np.float32], *, frame_hw: tuple[int, int], scale: float
) -> npt.NDArray[np.bool_]:
    """Return which boxes touch the edge of their frame, bool [R].

    boxes: float32 [R, 4], x0 y0 x1 y1 in frame px. scale: canvas px per frame px, of the canvas
    they were found on.
    """
    margin = _BORDER_CANVAS_PX / scale
    low = (boxes[:, :2] <= margin).any(axis=1)
    high = (boxes[:, 2:] >= np.array(frame_hw[::-1]) - margin).any(axis=1)
    return np.asarray(low | high)
