"""Read rendered smears with their truth, as `rbc-engine synth --out DIR/images --truth DIR/truth`
writes them.

    DIR/images/SLIDE/field-N.jpg
    DIR/truth/truth.json     boxes, types and number of cells of every region

A slide is a smear group: its fields share stain, light and optics. The masks next to truth.json are
not read, since it has their boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import TypeName
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.bounded_files import path_inside, read_bytes
from rbc_engine.training.datasets.check import Faults, ListedImage, checked_dataset
from rbc_engine.training.datasets.formats.boxes import clip_to_frame
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["load_synthetic"]

_FILE = "truth/truth.json"
_MAX_JSON_BYTES = 512 * 2**20
_USUAL = "oval_disc"

Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class _Region(BaseModel):
    box: Box
    types: Annotated[tuple[str, ...], Field(min_length=1)]
    cells: Annotated[int, Field(ge=1)]


class _Cell(BaseModel):
    box: Box


class _Truth(BaseModel):
    image: str
    regions: list[_Region]
    cells: list[_Cell]


class _Content(BaseModel):
    schema_: Annotated[Literal[1], Field(alias="schema")]
    types: Annotated[tuple[TypeName, ...], Field(min_length=1)]
    fields: Annotated[list[_Truth], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class _RenderedImage(ListedImage):
    truth: _Truth


def load_synthetic(folder: Path, *, threads: int | None = None) -> Dataset:
    """Read the dataset; see formats.LoadDataset."""
    missing = [name for name in ("images", "truth/truth.json") if not (folder / name).exists()]
    if missing:
        raise UsageError(
            f"--data {folder} lacks {' and '.join(missing)}; write them with "
            f"`rbc-engine synth --out {folder}/images --truth {folder}/truth`"
        )
    faults = Faults()
    content = _read(folder, faults)
    if content is None:
        raise faults.error(folder)
    images, groups = [], {}
    for number, truth in enumerate(content.fields):
        path = path_inside(folder / "images", truth.image)
        if path is None or "/" not in truth.image:
            faults.add(
                f"{_FILE}: fields.{number}.image must be SLIDE/FILE (got {truth.image!r:.100})"
            )
        elif truth.image in groups:
            faults.add(f"{_FILE}: fields.{number}.image {truth.image} occurs twice; keep one")
        else:
            images.append(_RenderedImage(path=path, name=truth.image, truth=truth))
            groups[truth.image] = truth.image.rpartition("/")[0]
    return checked_dataset(
        images,
        partial(_make_field, content.types),
        folder=folder,
        name="synthetic",
        types=content.types,
        abnormal=tuple(name for name in content.types if name != _USUAL),
        groups=groups,
        threads=threads,
        faults=faults,
    )


def _read(folder: Path, faults: Faults) -> _Content | None:
    data = read_bytes(folder / _FILE, name=_FILE, max_bytes=_MAX_JSON_BYTES, faults=faults)
    if data is None:
        return None
    try:
        return _Content.model_validate_json(data)
    except ValidationError as error:
        faults.add_invalid(_FILE, error)
        return None


def _make_field(
    names: Sequence[str],
    image: _RenderedImage,
    group: str,
    pixels: UInt8 | None,
    faults: Faults,
) -> LabelledField | None:
    regions, cells = image.truth.regions, image.truth.cells
    place = f"{_FILE}, {image.name}"
    types = np.zeros((len(regions), len(names)), bool)
    for row, region in zip(types, regions, strict=True):
        for name in region.types:
            if name in names:
                row[names.index(name)] = True
            else:
                faults.add(f"{place}: unknown type {name!r:.60}; types has {list(names)}")
    if pixels is None:
        return None
    boxes = _boxes(regions, f"{place}, region", pixels, faults)
    cell_boxes = _boxes(cells, f"{place}, cell", pixels, faults)
    return LabelledField(
        path=image.path,
        group=group,
        boxes=boxes,
        types=types,
        cells=np.array([region.cells for region in regions], np.int64),
        centres=np.asarray((cell_boxes[:, :2] + cell_boxes[:, 2:]) / 2, np.float32),
        known=np.ones(len(regions), bool),
        labelled=True,
    )


def _boxes(boxed: Sequence[_Region | _Cell], place: str, pixels: UInt8, faults: Faults) -> Float32:
    boxes = np.array([item.box for item in boxed], np.float64).reshape(-1, 4)
    places = [f"{place} {number}" for number in range(len(boxed))]
    return clip_to_frame(boxes, places, pixels=pixels, faults=faults)
