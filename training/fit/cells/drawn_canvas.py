"""Make a square canvas with its cells: a part of a field at a drawn scale, four of them, or a
rendered smear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.devices.cpu import ops
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.training.datasets.laboratories.base import RED, CellField, Stain
from rbc_engine.training.fit.restain import restain_field
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["Canvas", "Crop", "crop_field", "render_canvas", "tile_canvases"]

_NO_BOXES = np.zeros((0, 4), np.float32)
# A cell that the canvas cuts remains a cell if at least this share of it is still there; else it is
# unknown.
_VISIBLE = 0.25
_SMALLEST_AREA_PX = 16.0
# Largest share of a canvas's area that rendered cells cover together.
_RENDERED_COVER = 0.3
_SMALLEST_RENDERED_PX = 12.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Canvas:
    """Hold what the detector sees in a step.

    pixels: uint8 [S, S, 3], RGB.
    boxes: float32 [N, 4], single cells, in canvas px.
    kinds: uint8 [N], indices into KINDS.
    unknown: float32 [U, 4], neither cells nor background.
    """

    pixels: UInt8
    boxes: Float32
    kinds: UInt8
    unknown: Float32


@dataclass(frozen=True, eq=False, kw_only=True)
class Crop:
    """Hold a part of a field on a canvas.

    height, width: canvas px of the part; the rest is margin.
    cell_px: side of the field's median cell in canvas px. stain: of the canvas, before its
    exposure.
    """

    canvas: Canvas
    height: int
    width: int
    cell_px: float
    stain: Stain


def crop_field(
    field: CellField,
    *,
    side_px: int,
    scale: float,
    middle: bool,
    stain: Stain | None,
    stain_share: float,
    background_level: float | None,
    rng: np.random.Generator,
) -> Crop:
    """Cut a random square out of a field, or its middle, and put it on a canvas as the engine's
    resize does.

    side_px: of the canvas. scale: canvas px per field px.
    stain: of another laboratory, applied to the crop by `stain_share`; None for no change.
    background_level: see DetectorSettings.
    """
    height, width = field.pixels.shape[:2]
    side = round(side_px / scale)
    cut_h, cut_w = min(side, height), min(side, width)
    if middle:
        top, left = (height - cut_h) // 2, (width - cut_w) // 2
    else:
        top, left = int(rng.integers(height - cut_h + 1)), int(rng.integers(width - cut_w + 1))
    pixels = field.pixels[top : top + cut_h, left : left + cut_w]
    now = field.stain
    if stain is not None:
        pixels, now = restain_field(pixels, field.stain, stain, stain_share)
    seen_h, seen_w = (max(1, min(round(n * scale), side_px)) for n in (cut_h, cut_w))
    canvas = ops.resize_letterbox(
        [np.ascontiguousarray(pixels)],
        np.array([[seen_h, seen_w]], np.int32),
        canvas_hw=(side_px, side_px),
        background_level=background_level,
        threads=1,
    )[0]
    move = np.array([left, top], np.float32)
    factor = np.array([seen_w / cut_w, seen_h / cut_h], np.float32)
    boxes, share = _moved(field.boxes, move, (cut_w, cut_h), factor)
    unknown, unknown_share = _moved(field.unknown, move, (cut_w, cut_h), factor)
    keep = (share >= _VISIBLE) & (_areas(boxes) >= _SMALLEST_AREA_PX)
    return Crop(
        canvas=Canvas(
            pixels=canvas,
            boxes=boxes[keep],
            kinds=field.kinds[keep],
            unknown=np.concatenate([unknown[unknown_share > 0], boxes[~keep & (share > 0)]]),
        ),
        height=seen_h,
        width=seen_w,
        cell_px=scale * field.cell_px,
        stain=now,
    )


def tile_canvases(canvases: Sequence[Canvas]) -> Canvas:
    """Arrange four canvases of side S as one of side 2 S."""
    side = canvases[0].pixels.shape[0]
    pixels = np.empty((2 * side, 2 * side, 3), np.uint8)
    boxes, unknown = [], []
    for number, canvas in enumerate(canvases):
        row, column = divmod(number, 2)
        pixels[row * side :, column * side :][:side, :side] = canvas.pixels
        at = np.array([column, row, column, row], np.float32) * side
        boxes.append(canvas.boxes + at)
        unknown.append(canvas.unknown + at)
    return Canvas(
        pixels=pixels,
        boxes=np.concatenate(boxes),
        kinds=np.concatenate([canvas.kinds for canvas in canvases]),
        unknown=np.concatenate(unknown),
    )


def render_canvas(*, side_px: int, cell_px: float, rng: np.random.Generator) -> Canvas:
    """Render a smear of random stain and light, whose cells are known, even where they touch.

    cell_px: mean diameter of a cell.
    """
    cell_px = max(cell_px, _SMALLEST_RENDERED_PX)
    most = max(1, int(_RENDERED_COVER * (side_px / cell_px) ** 2))
    field = render_field(
        seed=int(rng.integers(2**31)),
        width=side_px,
        height=side_px,
        cells=int(rng.integers(1, most + 1)),
        cell_px=cell_px,
        touching=float(rng.uniform(0, 0.3)),
    )
    visible = _areas(field.cell_boxes) >= max(_SMALLEST_AREA_PX, _VISIBLE * cell_px**2)
    return Canvas(
        pixels=field.pixels,
        boxes=field.cell_boxes[visible],
        kinds=np.full(int(visible.sum()), RED, np.uint8),
        unknown=field.cell_boxes[~visible],
    )


def _moved(
    boxes: Float32, move: Float32, size: tuple[int, int], factor: Float32
) -> tuple[Float32, npt.NDArray[np.float32]]:
    """Return boxes float32 [N, 4] in canvas px, cut at the crop's edges, and the remaining share of
    each, [N].
    """
    if not len(boxes):
        return _NO_BOXES, np.zeros(0, np.float32)
    moved = boxes - np.tile(move, 2)
    inside = np.clip(moved, 0, np.tile(np.array(size, np.float32), 2))
    share = _areas(inside) / np.maximum(_areas(boxes), 1e-6)
    return (inside * np.tile(factor, 2)).astype(np.float32), share.astype(np.float32)


def _areas(boxes: Float32) -> npt.NDArray[np.float32]:
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return np.asarray(sides.prod(axis=1), np.float32)
