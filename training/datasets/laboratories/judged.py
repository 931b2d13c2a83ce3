"""Read the fields of laboratories that a pack is measured on, without keeping their pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.bounded_files import list_pictures
from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.formats.boxes import BoxedImage
from rbc_engine.training.datasets.formats.boxes_file import read_boxes
from rbc_engine.training.datasets.formats.chula12 import load_chula12
from rbc_engine.training.datasets.laboratories.base import RED, overlap, root_areas
from rbc_engine.training.datasets.laboratories.collection import DatasetEntry
from rbc_engine.training.datasets.laboratories.labelled_fields import boxed_cells, uncovered_boxes
from rbc_engine.training.datasets.laboratories.stain import stained_field
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["JudgedField", "JudgedLaboratory", "load_judged"]

_BORDER_PX = 2.0
_LONE_IOU = 0.03

Mask = npt.NDArray[np.bool_]
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False, kw_only=True)
class JudgedField:
    """Hold what is known of one image that a pack is measured on.

    laboratory: the name of its dataset. group: fields of one group are resampled together.
    frame_hw: height and width, pixels.
    boxes: float32 [N, 4], x0 y0 x1 y1 in pixels, of the labelled single cells.
    kinds: uint8 [N], indices into KINDS.
    unknown: float32 [U, 4], what is labelled as neither cell nor background.
    unlabelled: float32 [V, 4], foreground that no box covers.
    centres: float32 [M, 2], of the labelled red cells.
    complete: whether every cell is boxed, except at the border and in some clumps.
    labels: the regions and their types, if it has any.
    """

    laboratory: str
    path: Path
    group: str
    frame_hw: tuple[int, int] = (0, 0)
    boxes: Float32
    kinds: UInt8
    unknown: Float32
    unlabelled: Float32
    centres: Float32
    complete: bool
    labels: LabelledField | None = None

    def isolated(self) -> Mask:
        """Return which of the boxes are red cells clear of the border that touch nothing labelled,
        bool [N].
        """
        every = np.concatenate([self.boxes, self.unknown])
        shared = overlap(every, every)
        np.fill_diagonal(shared, 0.0)
        lone = shared.max(axis=1, initial=0.0)[: len(self.boxes)] <= _LONE_IOU
        return np.asarray(lone & (self.kinds == RED) & self.clear(self.boxes))

    def clear(self, boxes: Float32) -> Mask:
        """Return whether boxes, float32 [N, 4], lie clear of the field's border, bool [N]."""
        height, width = self.frame_hw
        low = (boxes[:, :2] > _BORDER_PX).all(axis=1)
        high = (boxes[:, 2:] < np.array([width, height]) - _BORDER_PX).all(axis=1)
        return np.asarray(low & high)


@dataclass(frozen=True, eq=False, kw_only=True)
class JudgedLaboratory:
    """Hold the chosen fields of one dataset, and its smears if its regions have types."""

    entry: DatasetEntry
    fields: tuple[JudgedField, ...]
    typed: Dataset | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class _Listed:
    """Hold an image before its cells are read: known are its name, its group and its labels."""

    field: JudgedField
    make: Callable[[JudgedField, UInt8, Faults], JudgedField]


def load_judged(
    entry: DatasetEntry,
    folder: Path,
    choose: Callable[[Sequence[JudgedField], Dataset | None], Sequence[JudgedField]],
    *,
    threads: int,
    copies: bool,
) -> JudgedLaboratory:
    """Read the chosen fields of a dataset.

    choose: selects from all fields, of which only laboratory, path, group and labels are known yet.
        Its second argument is the typed dataset.
    copies: whether copies of an image share a group, which takes reading every image.

    Raises UsageError that lists every fault, and for a dataset without an image.
    """
    if not folder.is_dir():
        raise UsageError(
            f"--data lacks the folder {folder} of the dataset {entry.name}; give the folder that "
            f"holds it, or leave it out with --without {entry.name}"
        )
    faults = Faults()
    typed = None
    if entry.format == "chula12":
        typed = load_chula12(folder, threads=threads)
        listed = [_typed(entry, labels) for labels in typed.fields]
    elif entry.format == "boxes":
        images, _ = read_boxes(folder, faults)
        listed = [_boxed(entry, image) for image in images]
    else:
        listed = [_pictured(entry, path) for path in list_pictures(folder)]
    if entry.format != "chula12" and (copies or entry.only is not None):
        listed = _grouped(listed, entry, folder, threads=threads, faults=faults)
    faults.raise_if_any(folder)
    if not listed:
        raise UsageError(
            f"--data {folder} has no image of the dataset {entry.name}; correct the collection, or "
            f"leave it out with --without {entry.name}"
        )
    chosen = {field.path for field in choose([item.field for item in listed], typed)}
    fields = _each(
        [item for item in listed if item.field.path in chosen],
        lambda item, pixels, found: item.make(item.field, pixels, found),
        folder,
        threads=threads,
        faults=faults,
    )
    faults.raise_if_any(folder)
    return JudgedLaboratory(entry=entry, fields=tuple(filter(None, fields)), typed=typed)


def _bare(entry: DatasetEntry, path: Path, group: str, labels: LabelledField | None) -> JudgedField:
    none = np.zeros((0, 4), np.float32)
    return JudgedField(
        laboratory=entry.name,
        path=path,
        group=group,
        boxes=none,
        kinds=np.zeros(0, np.uint8),
        unknown=none,
        unlabelled=none,
        centres=np.zeros((0, 2), np.float32),
        complete=False,
        labels=labels,
    )


def _pictured(entry: DatasetEntry, path: Path) -> _Listed:
    def make(field: JudgedField, pixels: UInt8, faults: Faults) -> JudgedField:
        return replace(field, frame_hw=_hw(pixels))

    return _Listed(field=_bare(entry, path, path.name, None), make=make)


def _typed(entry: DatasetEntry, labels: LabelledField) -> _Listed:
    def make(field: JudgedField, pixels: UInt8, faults: Faults) -> JudgedField:
        one = labels.known & labels.isolated
        return replace(
            field,
            frame_hw=_hw(pixels),
            boxes=labels.boxes[one],
            kinds=np.full(int(one.sum()), RED, np.uint8),
            unknown=labels.boxes[~one],
            centres=labels.centres,
        )

    return _Listed(field=_bare(entry, labels.path, labels.group, labels), make=make)


def _boxed(entry: DatasetEntry, image: BoxedImage) -> _Listed:
    return _Listed(
        field=_bare(entry, image.path, image.name, None), make=partial(_boxes_of, entry, image)
    )


def _boxes_of(
    entry: DatasetEntry, image: BoxedImage, field: JudgedField, pixels: UInt8, faults: Faults
) -> JudgedField:
    boxes, kinds, unknown = boxed_cells(entry.kinds, image, pixels, faults)
    found = stained_field(pixels)
    red = boxes[kinds == RED]
    cell_px = float(np.median(root_areas(red))) if len(red) else found.cell_px
    unlabelled = np.zeros((0, 4), np.float32)
    if cell_px is not None:
        unlabelled = uncovered_boxes(found.labels, np.concatenate([boxes, unknown]), cell_px)
    return replace(
        field,
        frame_hw=_hw(pixels),
        boxes=boxes,
        kinds=kinds,
        unknown=unknown,
        unlabelled=unlabelled,
        centres=(red[:, :2] + red[:, 2:]) / 2,
        complete=True,
    )


def _hw(pixels: UInt8) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]


def _grouped(
    listed: Sequence[_Listed], entry: DatasetEntry, folder: Path, *, threads: int, faults: Faults
) -> list[_Listed]:
    """Return the images that `only` admits, each with the group of the first one of its pixels."""

    def digest(item: _Listed, pixels: UInt8, found: Faults) -> str:
        if entry.only is not None and not entry.only.admits(pixels.shape[1]):
            return ""
        return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()

    first: dict[str, str] = {}
    kept = []
    digests = _each(listed, digest, folder, threads=threads, faults=faults)
    for item, found in zip(listed, digests, strict=True):
        if found:
            group = first.setdefault(found, item.field.group)
            kept.append(replace(item, field=replace(item.field, group=group)))
    return kept


def _each(
    listed: Sequence[_Listed],
    work: Callable[[_Listed, UInt8, Faults], Found],
    folder: Path,
    *,
    threads: int,
    faults: Faults,
) -> list[Found | None]:
    """Do something with the pixels of every image; None for one that cannot be read."""

    def run(item: _Listed) -> tuple[Found | None, Faults]:
        found = Faults()
        path = item.field.path
        try:
            return work(item, read_image(path, name=os.path.relpath(path, folder)), found), found
        except ImageError as error:
            found.add(str(error))
            return None, found

    with ThreadPoolExecutor(max(1, threads)) as pool:
        results = list(pool.map(run, listed))
    for _, found in results:
        faults.extend(found)
    return [value for value, _ in results]
