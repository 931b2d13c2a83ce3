"""Compute the anchors from which proposals are decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.types.arrays import Float32

__all__ = ["base_anchors"]


def base_anchors(sizes_px: Sequence[float], aspect_ratios: Sequence[float]) -> Float32:
    """Return the anchors of one level around (0, 0): torchvision's AnchorGenerator, rounded to
    whole pixels.

    sizes_px: square roots of the anchors' areas, canvas px.
    aspect_ratios: height over width.

    Returns float32 [A, 4], x0 y0 x1 y1 in canvas px, A = ratios x sizes, ratios outermost.
    """
    if not sizes_px or min(sizes_px) <= 0:
        raise ValueError(f"sizes_px must be positive, at least one (got {tuple(sizes_px)})")
    if not aspect_ratios or min(aspect_ratios) <= 0:
        raise ValueError(
            f"aspect_ratios must be positive, at least one (got {tuple(aspect_ratios)})"
        )
    sizes = np.asarray(sizes_px, np.float32)
    heights_per_size = np.sqrt(np.asarray(aspect_ratios, np.float32))
    heights = np.outer(heights_per_size, sizes).ravel()
    widths = np.outer(np.float32(1) / heights_per_size, sizes).ravel()
    corners = np.stack([-widths, -heights, widths, heights], axis=1) / np.float32(2)
    rounded: Float32 = np.rint(corners).astype(np.float32, copy=False)
    return rounded
