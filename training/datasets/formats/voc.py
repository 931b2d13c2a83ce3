"""Read Pascal VOC: an XML file of boxes for every image, one box per cell.

    DIR/images/NAME.jpg          or JPEGImages/; any format that the engine reads
    DIR/annotations/NAME.xml     or Annotations/; belongs to the image of the same NAME
    DIR/types.toml, DIR/smears.csv   optional

An annotation without objects is a field without red cells.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.bounded_files import (
    brief,
    find_folders,
    images_by_stem,
    read_bytes,
)
from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.formats.boxes import BoxedCell, BoxedImage, boxed_dataset

__all__ = ["load_voc"]

_MAX_XML_BYTES = 16 * 2**20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def load_voc(folder: Path, *, threads: int | None = None) -> Dataset:
    """Read the dataset; see formats.LoadDataset."""
    faults = Faults()
    image_folder, annotation_folder = find_folders(
        folder, ("images", "JPEGImages"), ("annotations", "Annotations")
    )
    unlabelled = images_by_stem(image_folder, faults)
    images = []
    for path in sorted(annotation_folder.glob("*.xml")):
        name = f"{annotation_folder.name}/{path.name}"
        cells = _read_annotation(path, name, faults)
        image = unlabelled.pop(path.stem, None)
        if image is None:
            faults.add(
                f"{name}: {image_folder.name}/ lacks its image {path.stem}.jpg (or .png, ...)"
            )
        else:
            images.append(BoxedImage(path=image, name=image.name, cells=cells))
    if not images:
        faults.add(f"{annotation_folder.name}/ holds no NAME.xml of an image; export one for each")
    left_out = [path.name for path in unlabelled.values()]
    notes = [f"{len(left_out)} images without an annotation are left out ({brief(left_out)})"]
    return boxed_dataset(
        folder,
        images,
        name="voc",
        notes=notes if left_out else (),
        threads=threads,
        faults=faults,
    )


def _read_annotation(path: Path, name: str, faults: Faults) -> list[BoxedCell]:
    """Return the objects of one file, without faulty ones."""
    data = read_bytes(path, name=name, max_bytes=_MAX_XML_BYTES, faults=faults)
    if data is None:
        return []
    try:
        parser = ElementTree.XMLParser(target=_PlainTree())  # noqa: S314
        root = ElementTree.fromstring(data, parser)  # noqa: S314
    except UsageError as error:
        faults.add(f"{name}: {error}")
        return []
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        faults.add(f"{name}: damaged XML ({error}); export it again")
        return []
    if root.tag != "annotation":
        faults.add(f"{name}: the root must be <annotation> (got <{root.tag:.40}>)")
        return []
    cells = []
    for number, element in enumerate(root.findall("object"), 1):
        place = f"{name}, object {number}"
        label = element.findtext("name", "").strip()
        corners = [element.findtext(f"bndbox/{corner}", "") for corner in _CORNERS]
        try:
            x0, y0, x1, y1 = map(float, corners)
        except ValueError:
            x0 = y0 = x1 = y1 = math.nan
        if not label or not all(map(math.isfinite, (x0, y0, x1, y1))):
            faults.add(
                f"{place}: needs a name and a bndbox of four finite numbers {' '.join(_CORNERS)} "
                f"(got name {label!r:.60}, {corners!r:.100})"
            )
        else:
            cells.append(BoxedCell(place=place, label=label, box=(x0, y0, x1, y1)))
    return cells


class _PlainTree(ElementTree.TreeBuilder):
    """Refuse a document type, and with it every entity: labels need none, and they can make a small
    file huge.
    """

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise UsageError("must not declare a document type or entities; remove the <!DOCTYPE ...>")
