"""Read Chula RBC-12 (Naruenatthanaset et al. 2021, arXiv 2012.01321): cell centres with one of
twelve types.

    DIR/images/N.jpg
    DIR/labels/N.txt    a line per cell: x y type
    DIR/smears.csv      image, smear_group, labelled

There are centres but no boxes, and many fields are only partly labelled: regions come from the
pixels, and a region counts as known if its area leaves no room for a cell without a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.bounded_files import path_inside, read_bytes, smear_groups
from rbc_engine.training.datasets.check import Faults, ListedImage, describe_copies, read_fields
from rbc_engine.training.datasets.foreground import components, foreground_mask
from rbc_engine.types.arrays import UInt8

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
_MAX_LABEL_BYTES = 2**20


def load_chula12(folder: Path, *, threads: int | None = None) -> Dataset:
    """Read the whole dataset; about 25 seconds of one core for 582 images. See formats.LoadDataset.

    Groups that hold the same image are noted, not refused: the published images have some.
    """
    missing = [name for name in ("images", "labels", "smears.csv") if not (folder / name).exists()]
    if missing:
        raise UsageError(
            f"--data {folder} lacks {', '.join(missing)}, so it is not a Chula RBC-12 folder; "
            f"give the folder with images/, labels/ and smears.csv"
        )
    faults = Faults()
    groups = smear_groups(folder / "smears.csv", faults)
    images = []
    for name in groups or ():
        path = path_inside(folder / "images", name)
        if path is None:
            faults.add(
                f"smears.csv: image must be the name of a file in images/ (got {name!r:.100})"
            )
        else:
            images.append(ListedImage(path=path, name=name))
    if groups == {}:
        faults.add("smears.csv names no image; list one in each row")
    fields, copies = read_fields(
        images,
        partial(_make_field, folder / "labels"),
        folder=folder,
        groups=groups or {},
        threads=threads,
        faults=faults,
    )
    faults.raise_if_any(folder)
    return Dataset(
        name="chula12",
        types=TYPES,
        abnormal=ABNORMAL,
        fields=fields,
        notes=tuple(describe_copies(copies)),
        same_smear=tuple(copies),
    )


def _make_field(
    label_folder: Path, image: ListedImage, group: str, pixels: UInt8 | None, faults: Faults
) -> LabelledField | None:
    label_path = label_folder / f"{Path(image.name).stem}.txt"
    labelled = label_path.is_file()
    rows = _read_labels(label_path, faults) if labelled else []
    if pixels is None:
        return None
    cells = _in_frame(rows, pixels, f"labels/{label_path.name}", faults)
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
        path=image.path,
        group=group,
        boxes=boxes[keep],
        types=types[keep],
        cells=cell_count[keep],
        centres=cells[:, :2].astype(np.float32),
        known=known[keep],
        labelled=labelled,
    )


def _median_cell_area(areas: npt.NDArray[np.int64], cell_count: npt.NDArray[np.int64]) -> float:
    """Return the median area of the regions with one labelled cell; of all but specks if there are
    too few.
    """
    candidates = areas[cell_count == 1]
    if len(candidates) < _ENOUGH_CELLS:
        candidates = areas[areas > _SPECK_PX]
    return float(np.median(candidates)) if len(candidates) else 1.0


def _read_labels(path: Path, faults: Faults) -> list[tuple[int, tuple[int, int, int]]]:
    """Return line number, and x, y, label, of every cell, without faulty lines."""
    name = f"labels/{path.name}"
    data = read_bytes(path, name=name, max_bytes=_MAX_LABEL_BYTES, faults=faults)
    rows = []
    for number, line in enumerate((data or b"").decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            x, y, label = (int(word) for word in line.split())
        except ValueError:
            x, y, label = 0, 0, -1
        if label in _LABELS:
            rows.append((number, (x, y, label)))
        else:
            faults.add(
                f"{name}, line {number}: must be x y type, whole numbers, type 0..12 (got "
                f"{line!r:.80})"
            )
    return rows


def _in_frame(
    rows: Sequence[tuple[int, tuple[int, int, int]]], pixels: UInt8, name: str, faults: Faults
) -> npt.NDArray[np.int64]:
    """Return int64 [N, 3]: x, y, label of the cells whose centre lies in the frame."""
    height, width = pixels.shape[:2]
    cells = []
    for number, (x, y, label) in rows:
        if 0 <= x < width and 0 <= y < height:
            cells.append((x, y, label))
        else:
            faults.add(
                f"{name}, line {number}: {x} {y} must lie in the frame of {width}x{height} px"
            )
    return np.array(cells, np.int64).reshape(-1, 3)


def _region_at(
    labels: npt.NDArray[np.int32], centres: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the index of the region under each centre (x, y); -1 if there is none."""
    return labels[centres[:, 1], centres[:, 0]].astype(np.int64) - 1
