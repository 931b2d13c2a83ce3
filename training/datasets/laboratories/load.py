"""Read and check the fields of a collection's datasets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.bounded_files import list_pictures
from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.formats.boxes import BoxedImage
from rbc_engine.training.datasets.formats.boxes_file import read_boxes
from rbc_engine.training.datasets.formats.chula12 import load_chula12
from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.datasets.laboratories.collection import DatasetEntry
from rbc_engine.training.datasets.laboratories.labelled_fields import (
    boxed_field,
    pictured_field,
    typed_field,
)
from rbc_engine.types.arrays import UInt8

__all__ = ["LaboratoryFields", "load_fields"]

Log = Callable[[str], None]
MakeField = Callable[[UInt8, Faults], "CellField | None"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LaboratoryFields:
    """Hold the fields of a collection's datasets.

    entries: the datasets, in the order of the collection.
    fields: all their fields; those of one dataset are consecutive.
    typed: the dataset whose regions have types; None if the collection has none.
    """

    entries: tuple[DatasetEntry, ...]
    fields: tuple[CellField, ...]
    typed: Dataset | None


def load_fields(
    entries: Sequence[DatasetEntry], data: Path, *, threads: int, log: Log
) -> LaboratoryFields:
    """Decode every image of the datasets and find its cells, stain and scale.

    data: the folder to which the paths of the entries are relative.

    Raises UsageError that lists every fault of a dataset, and for one without a usable field.
    """
    fields: list[CellField] = []
    typed = None
    for entry in entries:
        folder = data / entry.path
        if not folder.is_dir():
            raise UsageError(
                f"--data {data} lacks the folder {entry.path} of the dataset {entry.name}; "
                f"give the folder that holds it, or leave it out with --without {entry.name}"
            )
        log(f"reading {entry.name}: {folder}")
        faults = Faults()
        if entry.format == "chula12":
            typed = load_chula12(folder, threads=threads)
            jobs = [_typed_job(entry, labels) for labels in typed.fields]
            notes: tuple[str, ...] = typed.notes
        elif entry.format == "boxes":
            images, notes = read_boxes(folder, faults)
            jobs = [_boxed_job(entry, image) for image in images]
        else:
            jobs, notes = _picture_jobs(entry, folder), ()
        found = _run(jobs, entry, folder, threads=threads, faults=faults, log=log)
        faults.raise_if_any(folder)
        for note in notes:
            log(f"note: {entry.name}: {note}")
        if not found:
            raise UsageError(
                f"--data {folder} has no image of the dataset {entry.name} in which a red cell is "
                f"found; correct the collection, or leave it out with --without {entry.name}"
            )
        fields += found
    return LaboratoryFields(entries=tuple(entries), fields=tuple(fields), typed=typed)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Job:
    path: Path
    make: MakeField


def _typed_job(entry: DatasetEntry, labels: LabelledField) -> _Job:
    return _Job(path=labels.path, make=lambda pixels, faults: typed_field(entry, labels, pixels))


def _boxed_job(entry: DatasetEntry, image: BoxedImage) -> _Job:
    return _Job(path=image.path, make=partial(boxed_field, entry, image, image.name))


def _picture_jobs(entry: DatasetEntry, folder: Path) -> list[_Job]:
    def job(path: Path) -> _Job:
        return _Job(
            path=path, make=lambda pixels, faults: pictured_field(entry, path, path.name, pixels)
        )

    return [job(path) for path in list_pictures(folder)]


def _run(
    jobs: Sequence[_Job],
    entry: DatasetEntry,
    folder: Path,
    *,
    threads: int,
    faults: Faults,
    log: Log,
) -> list[CellField]:
    def run(job: _Job) -> tuple[CellField | None, bool, str, Faults]:
        found = Faults()
        try:
            pixels = read_image(job.path, name=os.path.relpath(job.path, folder))
        except ImageError as error:
            found.add(str(error))
            return None, False, "", found
        if entry.only is not None and not entry.only.admits(pixels.shape[1]):
            return None, False, "", found
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        field = job.make(pixels, found)
        return field, field is None, digest, found

    with ThreadPoolExecutor(max(1, threads)) as pool:
        results = list(pool.map(run, jobs))
    fields = []
    first: dict[str, str] = {}
    for field, _, digest, found in results:
        faults.extend(found)
        if field is not None:
            # A copy under another name stays on the side of the first one.
            group = (
                field.group if entry.format == "chula12" else first.setdefault(digest, field.group)
            )
            fields.append(replace(field, group=group))
    if without := sum(unscaled for _, unscaled, _, _ in results):
        log(f"note: {entry.name}: {without} images show no cell to take the scale from; left out")
    log(f"{entry.name}: {len(fields)} fields, {sum(len(f.boxes) for f in fields)} single cells")
    return fields
