"""Chula RBC-12 (Naruenatthanaset et al. 2021, arXiv 2012.01321): cell centres with one of twelve types.

    DIR/images/N.jpg
    DIR/labels/N.txt    a line a cell: x y type
    DIR/smears.csv      image, smear_group, labelled

There are centres but no boxes, and many fields are labelled in part: regions come from the pixels, and a region
counts as known where its area leaves no room for a cell without a label.
"""

from __future__ import annotations

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
_LABELS = frozenset((*_TYPE_OF_LABEL, _UNCATEGORISED))
# A region can hold no unlabelled cell if its area is at most this times that of its labelled cells.
_ROOM = 1.45
# Components smaller than this share of the field's median cell are platelets and dirt.
_SMALLEST = 0.25
# Fewer labelled single cells than this say little about the size of a cell.
_ENOUGH_CELLS = 5
_SPECK_PX = 100


def load_chula12(folder: Path, *, threads: int | None = None) -> Dataset:
    """Reads the whole dataset; about 25 seconds of one core for 582 images.

    threads: None for the cores that this process may use.

    Raises UsageError if `folder` lacks something or a label is not of this dataset, ImageError for a damaged image.
    """
    rows = _read_table(folder)
    workers = len(os.sched_getaffinity(0)) if threads is None else threads
    with ThreadPoolExecutor(workers) as pool:
        fields = tuple(pool.map(partial(_load_field, folder), *zip(*rows, strict=True)))
    return Dataset(name="chula12", types=TYPES, abnormal=ABNORMAL, fields=fields)


def _read_table(folder: Path) -> list[tuple[str, str]]:
    """Image and smear group of every row of smears.csv, once everything that it names is known to be there."""
    missing = [name for name in ("images", "labels", "smears.csv") if not (folder / name).exists()]
    if missing:
        raise UsageError(
            f"--data {folder} lacks {', '.join(missing)}, so it is no Chula RBC-12 folder; "
            f"give the folder with images/, labels/ and smears.csv"
        )
    table = folder / "smears.csv"
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        if not columns >= {"image", "smear_group"}:
            raise UsageError(
                f"{table} must have the columns image and smear_group (got {sorted(columns)})"
            )
        rows = [(row["image"], row["smear_group"]) for row in reader]
    if not rows:
        raise UsageError(f"{table} names no image; list one in each row")
    absent = [image for image, _ in rows if not (folder / "images" / image).is_file()]
    if absent:
        raise UsageError(
            f"{table} names {len(absent)} images that {folder / 'images'} lacks: {', '.join(absent[:5])}"
            f"{', ...' if len(absent) > 5 else ''}; copy them there or remove their rows"
        )
    return rows


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
    median_area = _median_cell_area(areas, cell_count)
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
        centres=cells[:, :2].astype(np.float32),
        known=known[keep],
        labelled=labelled,
    )


def _median_cell_area(areas: npt.NDArray[np.int64], cell_count: npt.NDArray[np.int64]) -> float:
    """Of the regions with one labelled cell; of all but the specks where these are too few."""
    candidates = areas[cell_count == 1]
    if len(candidates) < _ENOUGH_CELLS:
        candidates = areas[areas > _SPECK_PX]
    return float(np.median(candidates)) if len(candidates) else 1.0


def _read_labels(path: Path) -> npt.NDArray[np.int64]:
    """int64 [N, 3]: x, y, label of every cell."""
    cells = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            x, y, label = (int(word) for word in line.split())
        except ValueError:
            label = -1
        if label not in _LABELS:
            raise UsageError(
                f"{path}, line {number}: must be x y type, whole numbers, type 0..12 (got {line!r:.80})"
            )
        cells.append((x, y, label))
    return np.array(cells, np.int64).reshape(-1, 3)


def _region_at(
    labels: npt.NDArray[np.int32], centres: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Index of the region under each centre (x, y); -1 where there is none."""
    height, width = labels.shape
    x = np.clip(centres[:, 0], 0, width - 1)
    y = np.clip(centres[:, 1], 0, height - 1)
    return labels[y, x].astype(np.int64) - 1
