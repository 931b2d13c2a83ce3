"""Read boxes of single cells from one JSON file.

    DIR/images/NAME.jpg          any format that the engine reads
    DIR/boxes.json               NAME.jpg -> [[x0, y0, x1, y1, label], ...], pixels, origin top left
    DIR/types.toml, DIR/smears.csv   optional, for --format boxes

An image with an empty list is a field without cells.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.bounded_files import brief, path_inside, read_bytes
from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.formats.boxes import BoxedCell, BoxedImage, boxed_dataset
from rbc_engine.training.datasets.type_names import TypeNames

__all__ = ["OVERHANG", "USUAL_NAMES", "load_boxes", "read_boxes"]

OVERHANG = 0.25
"""Largest share of a box's sides beyond the frame: boxes of single cells are often drawn
loosely.
"""

_FILE = "boxes.json"
_MAX_JSON_BYTES = 128 * 2**20
USUAL_NAMES = TypeNames(
    untyped=("rbc", "red", "parasite"),
    ignore=("wbc", "white_cell", "platelet", "platelets", "artefact", "other"),
)
"""Names that laboratories give red cells, and anything else."""


def load_boxes(folder: Path, *, threads: int | None = None) -> Dataset:
    """Read the dataset; see formats.LoadDataset. Labels are those of types.toml; without it rbc and
    parasite are red cells.
    """
    faults = Faults()
    images, notes = read_boxes(folder, faults)
    return boxed_dataset(
        folder,
        images,
        name="boxes",
        notes=notes,
        without_file=USUAL_NAMES,
        overhang=OVERHANG,
        threads=threads,
        faults=faults,
    )


def read_boxes(folder: Path, faults: Faults) -> tuple[list[BoxedImage], tuple[str, ...]]:
    """Read the images and their cells, with notes; problems become faults.

    Raises UsageError for a folder without images/ or boxes.json.
    """
    missing = [name for name in ("images", _FILE) if not (folder / name).exists()]
    if missing:
        raise UsageError(
            f"{folder} lacks {' and '.join(missing)}; give the folder that holds them, or another "
            "format"
        )
    data = read_bytes(folder / _FILE, name=_FILE, max_bytes=_MAX_JSON_BYTES, faults=faults)
    if data is None:
        return [], ()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        faults.add(f"{_FILE}: not JSON ({error}); write it again")
        return [], ()
    if not isinstance(content, dict) or not content:
        faults.add(f"{_FILE}: must map the name of each image to the list of its boxes; add some")
        return [], ()
    images = []
    for name, rows in sorted(content.items()):
        path = path_inside(folder / "images", name)
        if path is None or "/" in name:
            faults.add(f"{_FILE}: {name!r:.100} must be the name of a file in images/; correct it")
        elif not isinstance(rows, list):
            faults.add(
                f"{_FILE}, {name}: must be a list of boxes (got {rows!r:.60}); use [] for none"
            )
        else:
            found = [_cell(row, f"{_FILE}, {name}, box {n}", faults) for n, row in enumerate(rows)]
            cells = [cell for cell in found if cell is not None]
            images.append(BoxedImage(path=path, name=name, cells=cells))
    left_out = sorted({path.name for path in (folder / "images").iterdir()} - set(content))
    note = f"{len(left_out)} images that {_FILE} does not name are left out ({brief(left_out)})"
    return images, (note,) if left_out else ()


def _cell(row: object, place: str, faults: Faults) -> BoxedCell | None:
    if isinstance(row, list) and len(row) == 5 and isinstance(row[4], str) and row[4].strip():
        numbers = [v for v in row[:4] if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) == 4 and all(abs(v) < 1e9 and math.isfinite(v) for v in numbers):
            x0, y0, x1, y1 = map(float, numbers)
            return BoxedCell(place=place, label=row[4].strip(), box=(x0, y0, x1, y1))
    faults.add(f"{place}: needs four finite numbers and a label (got {row!r:.100}); correct it")
    return None
