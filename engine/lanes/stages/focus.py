"""Measure focus in patches: how steep edges are, and whether a frame is blurred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.devices.base import Array, Device
from rbc_engine.packs.manifest import Manifest
from rbc_engine.types.arrays import Float32

__all__ = ["BLURRED_UM", "blurred_frames", "edge_widths"]

BLURRED_UM = 0.82
"""A frame with wider edges is out of focus: in sharp fields of labelled smears they are 0.5 to 0.8
µm wide.
"""

_REGIONS = 32
"""Number of regions examined per frame, the surest first: they carry as much information as all,
and a GPU's must be fetched.
"""
_STEP = 2
"""Step between the pixels examined in a patch, along and across: a quarter of them carries as much
information.
"""
_STEEP_PERCENTILE = 95
_DARK_PERCENTILE, _BRIGHT_PERCENTILE = 5, 95


def blurred_frames(
    device: Device[Array],
    patches: Array,
    windows: Sequence[Float32],
    *,
    canvas_scales: Sequence[float],
    settings: Manifest,
) -> list[bool]:
    """Return whether each frame is out of focus, by the median over its regions, since some cells
    have a soft rim.

    patches: of all frames, [sum of R, 3, P, P] on the device. windows: that they were cut from, for
    each frame float32 [R, 4] in frame px, R at least 1. canvas_scales: canvas px per frame px, one
    per frame.

    False for all if the pack does not know its own scale.
    """
    canvas_um = settings.detector.um_per_canvas_px
    if canvas_um is None:
        return [False] * len(windows)
    begins = np.cumsum([0, *(len(window) for window in windows[:-1])]).tolist()
    surest = [window[:_REGIONS] for window in windows]
    fetched = device.download(
        *(patches[begin : begin + len(some)] for begin, some in zip(begins, surest, strict=True))
    )
    blurred = []
    for here, some, scale in zip(fetched, surest, canvas_scales, strict=True):
        patch_um = (some[:, 2] - some[:, 0]) * (scale * canvas_um / here.shape[-1])
        blurred.append(bool(np.median(edge_widths(here) * patch_um) > BLURRED_UM))
    return blurred


def edge_widths(patches: Float32) -> Float32:
    """Return the width in patch px of a step from dark to bright at the steep edges of each patch,
    float32 [R].

    It is the range between dark and bright over the gradient there, both as percentiles of the
    green channel, in which red cells show best: neither the stain's strength nor a camera's noise
    matters much.

    patches: float32 or fp16 [R, 3, P, P], in any unit.
    """
    green = np.ascontiguousarray(patches[:, 1], dtype=np.float32)
    here = green[:, :-1:_STEP, :-1:_STEP]
    across = green[:, :-1:_STEP, 1::_STEP] - here
    along = green[:, 1::_STEP, :-1:_STEP] - here
    squares = (across * across + along * along).reshape(len(green), -1)
    steep = np.sqrt(np.percentile(squares, _STEEP_PERCENTILE, axis=1))
    dark, bright = np.percentile(
        here.reshape(len(green), -1), [_DARK_PERCENTILE, _BRIGHT_PERCENTILE], axis=1
    )
    widths: Float32 = ((bright - dark) / np.maximum(steep, 1e-6)).astype(np.float32)
    return widths
