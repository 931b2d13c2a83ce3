"""Read COCO JSON: the boxes of all images in one file, one box per cell.

    DIR/annotations.json     or the only *.json in DIR
    DIR/FILE_NAME            or DIR/images/FILE_NAME
    DIR/types.toml, DIR/smears.csv   optional

An image without annotations is a field without red cells.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, FiniteFloat, ValidationError

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.bounded_files import path_inside, read_bytes
from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.formats.boxes import BoxedCell, BoxedImage, boxed_dataset

__all__ = ["load_coco"]

_MAX_JSON_BYTES = 512 * 2**20

Id = int | str


class _Image(BaseModel):
    id: Id
    file_name: str


class _Category(BaseModel):
    id: Id
    name: str


class _Annotation(BaseModel):
    image_id: Id
    category_id: Id
    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    """x, y, width, height in px."""
    iscrowd: int = 0


class _Content(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def load_coco(folder: Path, *, threads: int | None = None) -> Dataset:
    """Read the dataset; see formats.LoadDataset."""
    faults = Faults()
    path = _find_json(folder)
    content = _read(path, faults)
    if content is None:
        raise faults.error(folder)
    cells = _cells_by_image(content, path.name, faults)
    images = []
    for image in content.images:
        file = _find_image(folder, image.file_name)
        if file is None:
            faults.add(
                f"{path.name}: file_name must be a path inside the dataset, separated by / and "
                f"without .. (got {image.file_name!r:.100})"
            )
        else:
            images.append(BoxedImage(path=file, name=image.file_name, cells=cells[image.id]))
    if not images:
        faults.add(f"{path.name} lists no image; export it again")
    return boxed_dataset(folder, images, name="coco", threads=threads, faults=faults)


def _find_json(folder: Path) -> Path:
    usual = folder / "annotations.json"
    if usual.is_file():
        return usual
    found = sorted(folder.glob("*.json"))
    if len(found) != 1:
        raise UsageError(
            f"--data {folder} must hold annotations.json, or one other *.json "
            f"(got {[path.name for path in found]}); rename the one to read"
        )
    return found[0]


def _find_image(folder: Path, name: str) -> Path | None:
    """Find an image by its name; None if the name would leave the folder."""
    beside, below = path_inside(folder, name), path_inside(folder / "images", name)
    return below if below is not None and below.is_file() else beside


def _read(path: Path, faults: Faults) -> _Content | None:
    data = read_bytes(path, name=path.name, max_bytes=_MAX_JSON_BYTES, faults=faults)
    if data is None:
        return None
    try:
        return _Content.model_validate_json(data)
    except ValidationError as error:
        faults.add_invalid(path.name, error)
        return None


def _cells_by_image(content: _Content, file: str, faults: Faults) -> dict[Id, list[BoxedCell]]:
    """Return the boxes of every image, without faulty ones."""
    for kind, keys in (
        ("image id", [image.id for image in content.images]),
        ("file_name", [image.file_name for image in content.images]),
        ("category id", [category.id for category in content.categories]),
    ):
        for key, times in Counter(keys).items():
            if times > 1:
                faults.add(f"{file}: the {kind} {key!r:.100} occurs {times} times; keep one")
    labels = {category.id: category.name for category in content.categories}
    cells: dict[Id, list[BoxedCell]] = {image.id: [] for image in content.images}
    for number, annotation in enumerate(content.annotations):
        place = f"{file}, annotations.{number}"
        if annotation.image_id not in cells:
            faults.add(f"{place}: no image has the id {annotation.image_id!r:.100}")
        elif annotation.category_id not in labels:
            faults.add(f"{place}: no category has the id {annotation.category_id!r:.100}")
        elif annotation.iscrowd:
            faults.add(f"{place}: iscrowd must be 0; give every cell a box of its own")
        else:
            x, y, width, height = annotation.bbox
            label = labels[annotation.category_id]
            box = (x, y, x + width, y + height)
            cells[annotation.image_id].append(BoxedCell(place=place, label=label, box=box))
    return cells
