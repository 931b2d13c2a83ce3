"""Paste white cells and platelets of one laboratory into fields of another: many laboratories show
few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from rbc_engine.training.datasets.laboratories.base import WHITE_CELL, CellField
from rbc_engine.training.fit.cells.drawn_canvas import Canvas, Crop
from rbc_engine.types.arrays import Float32

__all__ = ["Donor", "find_donors", "paste_cell"]

# Field px beyond the box that are pasted too, fading out between these radii of the ellipse in the
# box.
_MARGIN_PX = 4
_OUTER, _FADE = 1.12, 0.14
_SIZE_SPREAD = 0.2
# Relative to the canvas's side: a larger cell is not pasted.
_LARGEST = 0.8
_SMALLEST_PX = 4
_DENSITY_RATIO = (0.3, 3.0)
# How often the pasted cell hides those under it, as a thick one does; otherwise light passes both.
_OPAQUE_SHARE = 0.75
_BACKGROUND_PERCENTILE = 85
# Share of a cell that the pasted one covers: from this on it is unknown, and from that on hidden.
_COVERED, _HIDDEN = 0.25, 0.8


@dataclass(frozen=True, eq=False, kw_only=True)
class Donor:
    """Identify a cell of a field that may be pasted elsewhere, by its index there."""

    field: CellField
    index: int


def find_donors(fields: Sequence[CellField]) -> list[Donor]:
    """List the boxed cells of any kind but red that lie whole in their field."""
    return [
        Donor(field=field, index=int(index))
        for field in fields
        for index in np.flatnonzero((field.kinds >= WHITE_CELL) & field.clear())
    ]


def paste_cell(crop: Crop, donor: Donor, rng: np.random.Generator) -> Crop:
    """Put the donor's cell somewhere on the crop, at the crop's scale; partly beyond its edge at
    times.

    Returns the crop unchanged if the cell would be too large for it or barely visible.
    """
    side_px = crop.canvas.pixels.shape[0]
    scale = (
        crop.cell_px / donor.field.cell_px * float(np.exp(rng.uniform(-_SIZE_SPREAD, _SIZE_SPREAD)))
    )
    layers = _layers(donor, scale, most_px=_LARGEST * side_px, rng=rng)
    if layers is None:
        return crop
    height, width = layers.shape[:2]
    y = int(rng.integers(-height // 4, crop.height - 3 * height // 4))
    x = int(rng.integers(-width // 4, crop.width - 3 * width // 4))
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + height, crop.height), min(x + width, crop.width)
    if min(bottom - top, right - left) < _SMALLEST_PX:
        return crop
    layers = layers[top - y : bottom - y, left - x : right - x]
    pixels = crop.canvas.pixels.copy()
    here = pixels[top:bottom, left:right]
    seen = crop.canvas.pixels[: crop.height, : crop.width]
    ratio = np.clip(crop.stain.density / donor.field.stain.density, *_DENSITY_RATIO)
    density = layers[..., :3] * ratio ** rng.uniform(0, 1)
    pixels[top:bottom, left:right] = _blended(
        here, density, layers[..., 3:], seen, opaque=rng.random() < _OPAQUE_SHARE
    )
    margin = _MARGIN_PX * scale
    box = np.array(
        [
            max(x + margin, 0),
            max(y + margin, 0),
            min(x + width - margin, crop.width),
            min(y + height - margin, crop.height),
        ],
        np.float32,
    )
    kind = donor.field.kinds[donor.index]
    return replace(crop, canvas=_with_cell(replace(crop.canvas, pixels=pixels), box, kind))


def _layers(
    donor: Donor, scale: float, *, most_px: float, rng: np.random.Generator
) -> Float32 | None:
    """Return optical densities of the cell, fading out, and its coverage, 0..1: float32 [h, w,
    4].
    """
    field = donor.field
    height, width = field.pixels.shape[:2]
    x0, y0, x1, y1 = np.round(field.boxes[donor.index]).astype(int)
    left, top = max(x0 - _MARGIN_PX, 0), max(y0 - _MARGIN_PX, 0)
    cut = field.pixels[top : min(y1 + _MARGIN_PX, height), left : min(x1 + _MARGIN_PX, width)]
    cut_h, cut_w = cut.shape[:2]
    seen_h, seen_w = (max(_SMALLEST_PX, round(n * scale)) for n in (cut_h, cut_w))
    if max(seen_h, seen_w) > most_px:
        return None
    density = -np.log(np.maximum(cut.astype(np.float32), 1) / field.stain.background)
    rows, columns = np.mgrid[:cut_h, :cut_w] + 0.5
    radius = np.hypot(
        (rows - cut_h / 2) / (cut_h / 2 - _MARGIN_PX + 0.5),
        (columns - cut_w / 2) / (cut_w / 2 - _MARGIN_PX + 0.5),
    )
    cover = np.clip((_OUTER - radius) / _FADE, 0, 1)[..., None]
    layers = torch.from_numpy(np.concatenate([density * cover, cover], axis=2)).float()
    resized = interpolate(
        layers.permute(2, 0, 1)[None], (seen_h, seen_w), mode="bilinear", antialias=True
    )
    turned: Float32 = resized[0].permute(1, 2, 0).numpy()
    if rng.random() < 0.5:
        turned = turned[::-1]
    return turned[:, ::-1] if rng.random() < 0.5 else turned


def _blended(
    here: npt.NDArray[np.uint8],
    density: Float32,
    cover: Float32,
    seen: npt.NDArray[np.uint8],
    *,
    opaque: bool,
) -> npt.NDArray[np.uint8]:
    levels = np.maximum(here.astype(np.float32), 1.0)
    if opaque:  # its own densities on the background of the canvas
        background = np.percentile(seen, _BACKGROUND_PERCENTILE, axis=(0, 1)).astype(np.float32)
        levels = levels ** (1 - cover) * np.maximum(background, 8) ** cover
    return np.clip(levels * np.exp(-density) + 0.5, 0, 255).astype(np.uint8)


def _with_cell(canvas: Canvas, box: Float32, kind: np.uint8) -> Canvas:
    low = np.maximum(canvas.boxes[:, :2], box[:2])
    high = np.minimum(canvas.boxes[:, 2:], box[2:])
    area = (canvas.boxes[:, 2:] - canvas.boxes[:, :2]).prod(axis=1)
    covered = np.clip(high - low, 0, None).prod(axis=1) / np.maximum(area, 1e-6)
    keep = covered <= _COVERED
    unknown = canvas.boxes[(covered > _COVERED) & (covered < _HIDDEN)]
    return replace(
        canvas,
        boxes=np.concatenate([canvas.boxes[keep], box[None]]),
        kinds=np.append(canvas.kinds[keep], kind),
        unknown=np.concatenate([canvas.unknown, unknown]),
    )
