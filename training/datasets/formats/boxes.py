"""Group boxes of single cells into regions: cells whose boxes overlap touch, or nearly, and are one
region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.bounded_files import read_smears
from rbc_engine.training.datasets.check import Faults, ListedImage, checked_dataset
from rbc_engine.training.datasets.type_names import IGNORED, UNTYPED, TypeNames, read_type_names
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["BoxedCell", "BoxedImage", "boxed_dataset", "clip_to_frame", "group_overlapping"]

# Tools count pixels from 0 or 1, with or without the last one, and round.
_ROUNDING_PX = 1.0
_SMALLEST_PX = 1.0
# More than any field holds; a larger table of overlaps could exhaust memory.
_MOST_CELLS = 2000


@dataclass(frozen=True, kw_only=True)
class BoxedCell:
    """Describe one object of an image.

    place: of its label, for messages.
    box: x0, y0, x1, y1 in pixels of the image, finite.
    """

    place: str
    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class BoxedImage(ListedImage):
    """Hold an image and its objects."""

    cells: Sequence[BoxedCell]


def boxed_dataset(
    folder: Path,
    images: Sequence[BoxedImage],
    *,
    name: str,
    notes: Sequence[str] = (),
    without_file: TypeNames | None = None,
    overhang: float = 0.0,
    threads: int | None,
    faults: Faults,
) -> Dataset:
    """Return the dataset of all images, once they, their boxes, DIR/types.toml and DIR/smears.csv
    are checked.

    without_file: the meaning of labels if there is no types.toml; None for TypeNames().
    overhang: see clip_to_frame.
    faults: those found so far.

    Raises UsageError that lists every fault.
    """
    names = read_type_names(folder, faults, without_file=without_file)
    if names is not None:
        names.check(((cell.label, cell.place) for image in images for cell in image.cells), faults)
    groups, smear_notes = read_smears(folder, [image.name for image in images], faults)
    names = names or TypeNames()
    return checked_dataset(
        images,
        partial(_make_field, names, overhang),
        folder=folder,
        name=name,
        types=names.types,
        abnormal=names.abnormal,
        groups=groups,
        notes=(*notes, *smear_notes),
        threads=threads,
        faults=faults,
    )


def group_overlapping(boxes: Float32) -> npt.NDArray[np.int64]:
    """Return the region of each box, int64 [N], 0..R-1; boxes with a common area share one, and so
    on from box to box.

    boxes: float32 [N, 4], x0 y0 x1 y1.
    """
    lower = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    upper = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    _, region = connected_components(csr_array((lower < upper).all(axis=2)), directed=False)
    return np.asarray(region, np.int64)


def clip_to_frame(
    boxes: npt.NDArray[np.float64],
    places: Sequence[str],
    *,
    pixels: UInt8,
    overhang: float = 0.0,
    faults: Faults,
) -> Float32:
    """Clip boxes to the frame, float32 [N, 4]; one that leaves it, or is nearly empty, is a fault.

    boxes: float64 [N, 4], x0 y0 x1 y1 in pixels of the frame. A pixel beyond it is rounding.
    places: N names for messages.
    overhang: largest share of a box's own sides beyond the frame: some laboratories draw their
    boxes loosely.
    """
    height, width = pixels.shape[:2]
    clipped = np.clip(boxes, 0, (width, height, width, height))
    allowed_px = np.maximum(overhang * np.tile(boxes[:, 2:] - boxes[:, :2], 2), _ROUNDING_PX)
    outside = (np.abs(boxes - clipped) > allowed_px).any(axis=1)
    smallest_px = np.min(clipped[:, 2:] - clipped[:, :2], axis=1)
    for place, box, wrong in zip(
        places, boxes, outside | (smallest_px < _SMALLEST_PX), strict=True
    ):
        if wrong:
            faults.add(
                f"{place}: the box {' '.join(f'{value:g}' for value in box)} must lie in the frame "
                f"of {width}x{height} px, its sides at least {_SMALLEST_PX:g} px; correct or "
                "remove it"
            )
    return clipped.astype(np.float32)


def _make_field(
    names: TypeNames,
    overhang: float,
    image: BoxedImage,
    group: str,
    pixels: UInt8 | None,
    faults: Faults,
) -> LabelledField | None:
    if len(image.cells) > _MOST_CELLS:
        faults.add(f"{image.name} has {len(image.cells)} boxes, more than {_MOST_CELLS}; cut it up")
        return None
    if pixels is None:
        return None
    boxes = np.array([cell.box for cell in image.cells], np.float64).reshape(-1, 4)
    codes = np.array([names.code(cell.label) for cell in image.cells], np.int64)
    red = codes != IGNORED
    codes = codes[red]
    places = [cell.place for cell in image.cells]
    clipped = clip_to_frame(boxes, places, pixels=pixels, overhang=overhang, faults=faults)[red]
    region = group_overlapping(clipped)
    count = int(region.max(initial=-1)) + 1
    types = np.zeros((count, len(names.types)), bool)
    typed = codes != UNTYPED
    types[region[typed], codes[typed]] = True
    known = np.ones(count, bool)
    known[region[~typed]] = False
    return LabelledField(
        path=image.path,
        group=group,
        boxes=_unions(clipped, region, count),
        types=types,
        cells=np.bincount(region, minlength=count),
        centres=(clipped[:, :2] + clipped[:, 2:]) / 2,
        known=known,
        labelled=True,
    )


def _unions(boxes: Float32, region: npt.NDArray[np.int64], count: int) -> Float32:
    """Return the smallest box around the boxes of each region, float32 [count, 4]."""
    unions = np.tile(np.array([np.inf, np.inf, -np.inf, -np.inf], np.float32), (count, 1))
    np.minimum.at(unions[:, :2], region, boxes[:, :2])
    np.maximum.at(unions[:, 2:], region, boxes[:, 2:])
    return unions
