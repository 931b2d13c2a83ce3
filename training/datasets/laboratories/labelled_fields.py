"""Make a field with its single cells from an image and its labels, for each format of a
collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.foreground import components
from rbc_engine.training.datasets.formats.boxes import BoxedImage, clip_to_frame
from rbc_engine.training.datasets.formats.boxes_file import OVERHANG
from rbc_engine.training.datasets.laboratories.base import (
    KINDS,
    RED,
    WHITE_CELL,
    CellField,
    overlap,
    root_areas,
)
from rbc_engine.training.datasets.laboratories.collection import UNKNOWN, DatasetEntry
from rbc_engine.training.datasets.laboratories.stain import stained_field
from rbc_engine.types.arrays import Float32, UInt8

__all__ = [
    "boxed_cells",
    "boxed_field",
    "in_the_middle",
    "pictured_field",
    "typed_field",
    "uncovered_boxes",
]

# Some laboratories box a white cell twice, once as a red one.
_TWIN_IOU = 0.5
# Foreground that no box covers: share of a cell's side that is opened away, and the least area that
# counts.
_OPENED = 1 / 16
_SPECK = 0.03
# A round component is a red cell if its side lies in this range around the median one's.
_RED_SIDES = (0.7, 1.35)
# Largest distance of a component in the middle of a picture from its centre, as a share of the
# width.
_MIDDLE = 0.12
_ENOUGH_CELLS = 4
_ENOUGH_CLEAR = 2


def boxed_field(
    entry: DatasetEntry, image: BoxedImage, group: str, pixels: UInt8, faults: Faults
) -> CellField | None:
    """Make the field of an image whose cells are boxed; None if it has no red cell to take the
    scale from.

    pixels: uint8 [H, W, 3]. faults: collects labels that entry.kinds does not name, and boxes
    outside the frame.
    """
    boxes32, kinds, unknown = boxed_cells(entry.kinds, image, pixels, faults)
    found = stained_field(pixels)
    field = CellField(
        laboratory=entry.name,
        path=image.path,
        group=group,
        pixels=pixels,
        boxes=boxes32,
        kinds=kinds,
        unknown=unknown,
        cell_px=1.0,
        stain=found.stain,
    )
    cell_px = _median_red(field)
    if cell_px is None:
        return None
    covered = np.concatenate([boxes32, unknown])
    more = uncovered_boxes(found.labels, covered, cell_px)
    return replace(field, cell_px=cell_px, unknown=np.concatenate([unknown, more]))


def boxed_cells(
    meanings: Mapping[str, str], image: BoxedImage, pixels: UInt8, faults: Faults
) -> tuple[Float32, UInt8, Float32]:
    """Return what the boxes of an image mean: the cells float32 [N, 4], their kinds uint8 [N], and
    the boxes float32 [U, 4] of what is labelled as neither cell nor background.

    meanings: of each label, one of KINDS or UNKNOWN. A red box that coincides with a white cell is
    dropped. pixels, faults: as in boxed_field.
    """
    means = [_meaning(meanings, cell.label, cell.place, faults) for cell in image.cells]
    boxes = np.array([cell.box for cell in image.cells], np.float64).reshape(-1, 4)
    places = [cell.place for cell in image.cells]
    clipped = clip_to_frame(boxes, places, pixels=pixels, overhang=OVERHANG, faults=faults)
    is_cell = np.array([meaning in KINDS for meaning in means], bool)
    kinds = np.array([KINDS.index(m) for m in means if m in KINDS], np.uint8)
    unknown = clipped[np.array([meaning == UNKNOWN for meaning in means], bool)]
    cells, kinds = _without_twins(clipped[is_cell], kinds)
    return cells, kinds, unknown


def in_the_middle(boxes: Float32, frame_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return whether the centre of each box, float32 [N, 4], lies in the middle of the frame."""
    height, width = frame_hw
    away = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - np.array([width, height]) / 2)
    return np.asarray((away < _MIDDLE * width).all(axis=1))


def pictured_field(entry: DatasetEntry, path: Path, group: str, pixels: UInt8) -> CellField | None:
    """Make the field of an image without labels: round components are red cells, all others
    unknown.

    None if there are too few of them to estimate the size of a cell.
    """
    found = stained_field(pixels)
    cell_px = found.cell_px
    if cell_px is None:
        return None
    sides = root_areas(found.boxes)
    low, high = _RED_SIDES
    red = found.round & (sides > low * cell_px) & (sides < high * cell_px)
    if entry.middle == "other":
        red &= ~in_the_middle(found.boxes, (pixels.shape[0], pixels.shape[1]))
    other = ~red & (found.areas > _SPECK * cell_px**2)
    return CellField(
        laboratory=entry.name,
        path=path,
        group=group,
        pixels=pixels,
        boxes=found.boxes[red],
        kinds=np.full(int(red.sum()), RED, np.uint8),
        unknown=found.boxes[other],
        cell_px=cell_px,
        stain=found.stain,
    )


def typed_field(entry: DatasetEntry, labels: LabelledField, pixels: UInt8) -> CellField | None:
    """Make the field of an image with typed regions: a region known to be one cell is its box, any
    other is unknown.

    None if neither labels nor round components give the size of a cell.
    """
    found = stained_field(pixels)
    one = labels.known & labels.isolated
    cell_px: float | None
    if one.sum() >= _ENOUGH_CELLS:
        cell_px = float(np.median(root_areas(labels.boxes[one])))
    else:
        cell_px = found.cell_px
    if cell_px is None:
        return None
    return CellField(
        laboratory=entry.name,
        path=labels.path,
        group=labels.group,
        pixels=pixels,
        boxes=labels.boxes[one],
        kinds=np.full(int(one.sum()), RED, np.uint8),
        unknown=labels.boxes[~one],
        cell_px=cell_px,
        stain=found.stain,
        labels=labels,
    )


def _meaning(kinds: Mapping[str, str], label: str, place: str, faults: Faults) -> str:
    if label in kinds:
        return kinds[label]
    faults.add(
        f"{place}: unknown kind {label!r:.60}; state its meaning in the collection: "
        f"kinds = {{ {label:.60} = one of {', '.join((*KINDS, UNKNOWN))} }}"
    )
    return UNKNOWN


def _without_twins(boxes: Float32, kinds: UInt8) -> tuple[Float32, UInt8]:
    white = kinds == WHITE_CELL
    if not white.any():
        return boxes, kinds
    twin = (kinds == RED) & (overlap(boxes, boxes[white]).max(axis=1) > _TWIN_IOU)
    return boxes[~twin], kinds[~twin]


def _median_red(field: CellField) -> float | None:
    """Return the root of the median box area of the red cells clear of the border, or of all if
    those are few.
    """
    red = field.kinds == RED
    clear = red & field.clear()
    chosen = clear if clear.sum() >= _ENOUGH_CLEAR else red
    if not chosen.any():
        return None
    return float(np.median(root_areas(field.boxes[chosen])))


def uncovered_boxes(labels: npt.NDArray[np.int32], boxes: Float32, cell_px: float) -> Float32:
    """Return boxes of the foreground that no box covers, float32 [U, 4].

    labels: int32 [H, W], 0 is background. cell_px: side of a usual cell.
    """
    left = labels > 0
    for x0, y0, x1, y1 in np.maximum(np.round(boxes), 0).astype(int):
        left[y0:y1, x0:x1] = False
    left = ndimage.binary_opening(left, iterations=max(1, round(cell_px * _OPENED)))
    _, found, areas = components(left)
    return found[areas > _SPECK * cell_px**2]
