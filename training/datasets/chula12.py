"""Chula RBC-12 (Naruenatthanaset et al. 2021, arXiv 2012.01321): cell centres with one of twelve types.

    DIR/images/N.jpg
    DIR/labels/N.txt    a line a cell: x y type
    DIR/smears.csv      image, smear_group, labelled

There are centres but no boxes, and many fields are labelled in part: regions come from the pixels, and a region
counts as known where its area leaves no room for a cell without a label.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from rbc_engine.errors import UsageError
from rbc_engine.sources.decode import decode_image
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.regions import components, foreground_mask

__all__ = ["ABNORMAL", "TYPES", "load_chula12"]

TYPES = (
    "normal",
    "macrocyte",
    "microcyte",
    "spherocyte",
    "target_cell",
    "stomatocyte",
    "ovalocyte",
    "teardrop",
    "burr_cell",
    "schistocyte",
    "hypochromia",
    "elliptocyte",
)
ABNORMAL = TYPES[1:]

_UNCATEGORISED = 10
_TYPE_OF_LABEL = {label: i for i, label in enumerate([*range(10), 11, 12])}
# A region can hold no unlabelled cell if its area is at most this times that of its labelled cells.
_ROOM = 1.45
# Components smaller than this share of the field's median cell are platelets and dirt.
_SMALLEST = 0.25


def load_chula12(folder: Path) -> Dataset:
    """Reads the whole dataset; half a minute for 582 images. Raises UsageError if `folder` is not it."""
    table = folder / "smears.csv"
    if not table.is_file():
        raise UsageError(
            f"--data {folder} holds no smears.csv, so it is not a Chula RBC-12 folder; "
            f"give the folder with images/, labels/ and smears.csv"
        )
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    fields = tuple(_load_field(folder, row["image"], row["smear_group"]) for row in rows)
    return Dataset(name="chula12", types=TYPES, abnormal=ABNORMAL, fields=fields)


def _load_field(folder: Path, image: str, group: str) -> LabelledField:
    path = folder / "images" / image
    pixels = decode_image(path.read_bytes(), name=str(path))
    label_path = folder / "labels" / f"{Path(image).stem}.txt"
    labelled = label_path.is_file()
    cells = _read_labels(label_path) if labelled else np.zeros((0, 3), np.int64)
    labels, boxes, areas = components(foreground_mask(pixels))

    at_centre = _region_at(labels, cells[:, :2])
    count = len(boxes)
    in_region = at_centre >= 0
    cell_count = np.bincount(at_centre[in_region], minlength=count)
    alone = areas[cell_count == 1]
    median_area = float(
        np.median(alone if len(alone) >= 5 else areas[areas > 100] if (areas > 100).any() else [1])
    )
    types = np.zeros((count, len(TYPES)), bool)
    uncategorised = np.zeros(count, bool)
    for region, label in zip(at_centre[in_region], cells[in_region, 2], strict=True):
        if label == _UNCATEGORISED:
            uncategorised[region] = True
        else:
            types[region, _TYPE_OF_LABEL[int(label)]] = True
    room = areas <= _ROOM * cell_count * median_area
    one_cell = cell_count == 1
    known = (cell_count > 0) & ~uncategorised & (room | one_cell & (areas <= 2 * median_area))
    keep = (areas >= _SMALLEST * median_area) | (cell_count > 0)
    return LabelledField(
        path=path,
        group=group,
        boxes=boxes[keep],
        types=types[keep],
        cells=cell_count[keep],
        known=known[keep],
        labelled=labelled,
    )


def _read_labels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return np.array(rows, np.int64).reshape(-1, 3)


def _region_at(
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
    centres: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Index of the region under each centre (x, y); -1 where there is none."""
    height, width = labels.shape
    x = np.clip(centres[:, 0], 0, width - 1)
    y = np.clip(centres[:, 1], 0, height - 1)
    return labels[y, x].astype(np.int64) - 1
