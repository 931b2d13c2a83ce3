"""Read a mask for every image, and a table of what the patches show (Qiu et al. 2019).

    DIR/images/NAME.jpg      any format that the engine reads
    DIR/masks/NAME.png       as large as its image: red cells white (255), the rest black (0)
    DIR/labels.csv           image, x, y, types; a row per cell, or a row per patch of cells
    DIR/types.toml, DIR/smears.csv   optional

Regions are the connected components of the mask. x and y are a pixel of the region, or for a cell
that bends around it, of that region's box alone. `types` separates several by ';'. An optional
column `cells` has the number of cells of the row; without it there are as many as types. Rows of
one region add up, and are all that it holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import read_image
from rbc_engine.sources.synthetic.drawn_cells import TYPES as SCD6
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.bounded_files import (
    find_folders,
    images_by_stem,
    read_smears,
    read_table,
)
from rbc_engine.training.datasets.check import Faults, ListedImage, checked_dataset
from rbc_engine.training.datasets.foreground import components
from rbc_engine.training.datasets.type_names import (
    IGNORED,
    UNTYPED,
    TypeNames,
    read_type_names,
)
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["load_masks"]

_TABLE = "labels.csv"
_PAPER = TypeNames(types=SCD6, abnormal=SCD6[1:])
_MOST_CELLS = 1000


@dataclass(frozen=True, kw_only=True)
class _Label:
    """Hold a row of the table. place: for messages; cells: how many it stands for."""

    place: str
    x: int
    y: int
    types: tuple[str, ...]
    cells: int


@dataclass(frozen=True, kw_only=True)
class _MaskedImage(ListedImage):
    mask: Path | None
    labels: Sequence[_Label]


def load_masks(folder: Path, *, threads: int | None = None) -> Dataset:
    """Read the dataset; see formats.LoadDataset. Without types.toml, the types are the paper's
    six.
    """
    faults = Faults()
    image_folder, mask_folder = find_folders(folder, ("images",), ("masks",))
    found, masks = images_by_stem(image_folder, faults), images_by_stem(mask_folder, faults)
    labels = _read_labels(folder / _TABLE, faults)
    images = [
        _MaskedImage(
            path=path, name=path.name, mask=masks.pop(stem, None), labels=labels.pop(path.name, ())
        )
        for stem, path in found.items()
    ]
    for path in masks.values():
        faults.add(f"masks/{path.name}: images/ lacks the image of this mask; add it")
    for name, rows in labels.items():
        faults.add(f"{rows[0].place}: images/ lacks the image {name}; add it or remove its rows")
    if not images:
        faults.add("images/ holds no image; add some")
    names = read_type_names(folder, faults, without_file=_PAPER)
    if names is not None:
        listed = [label for image in images for label in image.labels]
        names.check(((name, label.place) for label in listed for name in label.types), faults)
    names = names or TypeNames()
    groups, notes = read_smears(folder, [image.name for image in images], faults)
    return checked_dataset(
        images,
        partial(_make_field, names),
        folder=folder,
        name="masks",
        types=names.types,
        abnormal=names.abnormal,
        groups=groups,
        notes=notes,
        threads=threads,
        faults=faults,
    )


def _read_labels(path: Path, faults: Faults) -> dict[str, list[_Label]]:
    """Return the rows of the table by image, without faulty ones."""
    labels: dict[str, list[_Label]] = defaultdict(list)
    rows = read_table(path, columns=("image", "x", "y", "types"), faults=faults)
    for number, row in enumerate(rows or (), 2):
        place = f"{path.name}, line {number}"
        types = tuple(name.strip() for name in row["types"].split(";"))
        try:
            x, y = int(row["x"]), int(row["y"])
            cells = int(row.get("cells") or len(types))
        except ValueError:
            cells = 0
        if all(types) and len(types) <= cells <= _MOST_CELLS:
            labels[row["image"]].append(_Label(place=place, x=x, y=y, types=types, cells=cells))
        else:
            faults.add(
                f"{place}: needs whole numbers x and y in px, types separated by ';', and no fewer "
                f"cells than types (got x {row['x']!r:.20}, y {row['y']!r:.20}, types "
                f"{row['types']!r:.80}, cells {row.get('cells', '')!r:.20})"
            )
    return labels


def _make_field(
    names: TypeNames, image: _MaskedImage, group: str, pixels: UInt8 | None, faults: Faults
) -> LabelledField | None:
    if image.mask is None:
        faults.add(
            f"masks/ lacks the mask {Path(image.name).stem}.png of images/{image.name}; add it"
        )
        return None
    mask = _read_mask(image.mask, pixels, faults)
    if mask is None:
        return None
    labels, boxes, _ = components(mask)
    count = len(boxes)
    types = np.zeros((count, len(names.types)), bool)
    cells = np.zeros(count, np.int64)
    untyped = np.zeros(count, bool)
    ignored = np.zeros(count, bool)
    centres = []
    for label in image.labels:
        region = _region_of(label, labels, boxes, faults)
        if region is None:
            continue
        codes = np.array([names.code(name) for name in label.types])
        if (codes == IGNORED).all():
            ignored[region] = True
            continue
        types[region, codes[codes >= 0]] = True
        untyped[region] |= bool((codes == UNTYPED).any())
        cells[region] += label.cells
        centres.append((label.x, label.y))
    red = ~ignored | (cells > 0)
    return LabelledField(
        path=image.path,
        group=group,
        boxes=boxes[red],
        types=types[red],
        cells=cells[red],
        centres=np.array(centres, np.float32).reshape(-1, 2),
        known=((cells > 0) & ~untyped)[red],
        labelled=bool(image.labels),
    )


def _read_mask(path: Path, pixels: UInt8 | None, faults: Faults) -> npt.NDArray[np.bool_] | None:
    """Read where red cells are, bool [H, W]; None, and a fault, if the mask breaks a rule."""
    name = f"masks/{path.name}"
    try:
        mask = read_image(path, name=name)
    except ImageError as error:
        faults.add(str(error))
        return None
    if pixels is not None and mask.shape != pixels.shape:
        faults.add(
            f"{name}: must be as large as its image, {pixels.shape[1]}x{pixels.shape[0]} px "
            f"(got {mask.shape[1]}x{mask.shape[0]})"
        )
        return None
    if not (np.isin(mask, (0, 255)) & (mask == mask[..., :1])).all():
        faults.add(
            f"{name}: must be black (0) and white (255) only (got "
            f"{np.unique(mask)[:6].tolist()}...); threshold it, and store it as PNG"
        )
        return None
    if not mask.any():
        faults.add(f"{name}: empty mask; paint the red cells white, or remove mask and image")
        return None
    return np.asarray(mask[..., 0] > 0)


def _region_of(
    label: _Label, labels: npt.NDArray[np.int32], boxes: Float32, faults: Faults
) -> int | None:
    """Return the index of the region of a row; None, and a fault, if there is none."""
    height, width = labels.shape
    if not (0 <= label.x < width and 0 <= label.y < height):
        faults.add(
            f"{label.place}: {label.x} {label.y} must lie in the frame of {width}x{height} px"
        )
        return None
    if at := int(labels[label.y, label.x]):
        return at - 1
    point = np.array([label.x, label.y])
    about = np.flatnonzero((boxes[:, :2] <= point).all(axis=1) & (boxes[:, 2:] > point).all(axis=1))
    if len(about) != 1:
        faults.add(
            f"{label.place}: at {label.x} {label.y} the mask is black, and {len(about)} boxes of "
            f"regions hold the point; give a point on the cell"
        )
        return None
    return int(about[0])
