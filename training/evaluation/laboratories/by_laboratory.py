"""Measure a pack on every laboratory of a collection, analysing each field once."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from rbc_engine import _kernels
from rbc_engine.devices.choose import open_device
from rbc_engine.engine import Engine
from rbc_engine.errors import ImageError, UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.evaluation_fields import warn_of_training
from rbc_engine.training.datasets.laboratories.collection import Collection, DatasetEntry
from rbc_engine.training.datasets.laboratories.judged import (
    JudgedField,
    JudgedLaboratory,
    load_judged,
)
from rbc_engine.training.datasets.laboratories.label_meanings import read_meanings
from rbc_engine.training.datasets.laboratories.leaks import HELD_OUT_NOTE, LABORATORIES_NOTE
from rbc_engine.training.datasets.laboratories.sides import is_held_out
from rbc_engine.training.datasets.split import split_fields
from rbc_engine.training.evaluation.laboratories.laboratory_table import (
    LABORATORIES_SCHEMA,
    LaboratoryTable,
)
from rbc_engine.training.evaluation.laboratories.measured_row import (
    measure_laboratory,
    summarize,
)
from rbc_engine.training.evaluation.measures.bootstrap import PERCENT
from rbc_engine.training.evaluation.result import (
    BootstrapNotes,
    EngineNotes,
    PackNotes,
    ProgramNotes,
)
from rbc_engine.training.evaluation.score import Scored
from rbc_engine.training.workspace import Workspace
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.results import FieldResult

__all__ = [
    "HeldOut",
    "analyze_laboratories",
    "read_folder",
    "read_laboratories",
    "tabulate",
    "tabulate_folder",
]

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """State what a training on the collection held out; see CollectionPlan.open.

    trained: names of the datasets that it trained on; the others are measured on all their fields.
    """

    trained: frozenset[str]
    validation_share: float = 0.22
    split: str = "smears"
    split_seed: int = 0

    @classmethod
    def of_workspace(cls, folder: Path) -> HeldOut:
        """Read what the training in a folder held out. Raises UsageError if it was none on a
        collection.
        """
        options = Workspace(folder).options("data")
        if options.get("format") != "collection":
            raise UsageError(
                f"--work {folder} is not a training on a collection (its format: "
                f"{options.get('format')}); name another one, or give --split-seed"
            )
        return cls(
            trained=frozenset(entry["name"] for entry in options["datasets"]),
            validation_share=options["validation_share"],
            split=options["split"],
            split_seed=options["seed"],
        )

    def chosen(
        self, entry: DatasetEntry, fields: Sequence[JudgedField], typed: Dataset | None
    ) -> Sequence[JudgedField]:
        """Return the fields of a dataset to measure a pack on."""
        if entry.name not in self.trained:
            return fields
        if typed is not None:
            _, judge = split_fields(
                typed,
                split=self.split,
                validation_share=self.validation_share,
                seed=self.split_seed,
            )
            judges = {field.path for field in judge}
            return [field for field in fields if field.path in judges]
        if not self.validation_share:
            return []
        return [field for field in fields if is_held_out(entry, field.group)]


def read_laboratories(
    collection: Collection,
    data: Path,
    *,
    held_out: HeldOut,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    limit: int | None = None,
    threads: int,
    log: Log,
) -> tuple[JudgedLaboratory, ...]:
    """Read the fields of each laboratory to measure a pack on: the held-out ones of those trained
    on, all of the others.

    data: the folder to which the paths of the collection are relative. only, without: names of
    datasets. limit: most fields of each, spread evenly.

    Raises UsageError for unknown names, faulty data, and if nothing is held out.
    """
    laboratories = []
    for entry in collection.to_measure(only=only, without=without):
        folder = data / entry.path
        log(f"reading {entry.name}: {folder}")

        def choose(
            fields: Sequence[JudgedField],
            typed: Dataset | None,
            entry: DatasetEntry = entry,
        ) -> Sequence[JudgedField]:
            return _spread(held_out.chosen(entry, fields, typed), limit)

        found = load_judged(
            entry, folder, choose, threads=threads, copies=entry.name in held_out.trained
        )
        if found.fields:
            laboratories.append(found)
        else:
            log(f"note: {entry.name}: nothing was held out; left out")
    if not laboratories:
        raise UsageError(
            f"nothing of the collection {collection.name} was held out of the training; give "
            "another --validation-share, or a dataset that was not trained on"
        )
    return tuple(laboratories)


def read_folder(folder: Path, *, paths: Container[Path], threads: int) -> JudgedLaboratory:
    """Read a folder of boxes as one laboratory, called as the folder.

    paths: of the images to take.
    """
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_")[:40]
    entry = DatasetEntry(
        name=name or "boxes",
        path="images",
        format="boxes",
        kinds=read_meanings(folder),
        licence="not stated",
        use="measure",
    )
    return load_judged(
        entry,
        folder,
        lambda fields, typed: [field for field in fields if field.path in paths],
        threads=threads,
        copies=False,
    )


def tabulate_folder(
    pack: Pack, folder: Path, scored: Scored, *, threads: int, seed: int, log: Log
) -> LaboratoryTable:
    """Return the table of a folder of boxes, from the results of its evaluation."""
    threshold = np.float32(pack.manifest.detector.score_threshold)
    results = {}
    for result in scored.results:
        assert result.regions is not None
        shipped = result.regions.take(result.regions.scores >= threshold)
        results[Path(result.path)] = replace(result, regions=shipped)
    laboratory = read_folder(folder, paths=results, threads=threads)
    return tabulate(
        pack,
        [laboratory],
        results,
        scored.evaluation.engine,
        collection=laboratory.entry.name,
        resamples=scored.evaluation.bootstrap.resamples,
        seed=seed,
        log=log,
    )


def _spread(fields: Sequence[JudgedField], limit: int | None) -> Sequence[JudgedField]:
    if limit is None or len(fields) <= limit:
        return fields
    return [fields[int(index)] for index in np.linspace(0, len(fields) - 1, limit).round()]


def analyze_laboratories(
    pack: Pack,
    laboratories: Sequence[JudgedLaboratory],
    *,
    device: str = "auto",
    precision: str = "auto",
    log: Log,
) -> tuple[Mapping[Path, FieldResult], EngineNotes]:
    """Return the result of every field, by its path, of the pack as it is shipped.

    Raises ImageError for a field that cannot be analysed, DeviceError for a device that is not
    available.
    """
    fields = {field.path: field for lab in laboratories for field in lab.fields}
    log(f"analysing {len(fields)} fields")
    choice = open_device(device, precision=precision, calibration=pack.calibration)
    results = {}
    with Engine.on(pack, choice, estimate_scale=True) as engine:
        for path, result in zip(fields, engine.run(_decode(fields.values())), strict=True):
            if result.regions is None:
                raise ImageError(f"{result.path}: {result.error}")
            results[path] = result
        used = engine.choice.device
        threshold = pack.manifest.detector.score_threshold
        notes = EngineNotes(
            source="live run",
            device=used.name,
            backend=used.backend,
            precision=used.precision,
            score_threshold=threshold,
            score_floor=threshold,
            saturated_fields=sum(result.saturated for result in results.values()),
        )
    return results, notes


def tabulate(
    pack: Pack,
    laboratories: Sequence[JudgedLaboratory],
    results: Mapping[Path, FieldResult],
    engine: EngineNotes,
    *,
    collection: str,
    trained: frozenset[str] = frozenset(),
    resamples: int,
    seed: int,
    log: Log,
) -> LaboratoryTable:
    """Return the table by laboratory.

    collection: what the laboratories are together. trained: those of which only the held-out fields
    are there. resamples, seed: of the bootstrap.
    """
    rows, warnings = [], []
    for laboratory in laboratories:
        log(f"measuring {laboratory.entry.name}: {len(laboratory.fields)} fields")
        row, notes = measure_laboratory(
            pack,
            laboratory,
            [results[field.path] for field in laboratory.fields],
            held_out=laboratory.entry.name in trained,
            resamples=resamples,
            seed=seed,
        )
        rows.append(row)
        if laboratory.typed is not None:
            labelled = [field.labels for field in laboratory.fields if field.labels is not None]
            notes += [
                f"{laboratory.entry.name}: {warning}"
                for warning in warn_of_training(pack, laboratory.typed, labelled)
            ]
        notes += _seen(pack, laboratory.entry.name, held_out=laboratory.entry.name in trained)
        warnings += notes
    if pack.manifest.detector.unit == "region":
        warnings.append("this pack's detector finds regions, which are taken as cells here")
    warnings.append(
        "average precisions are those of the pack as shipped: cut off at its score threshold"
    )
    return LaboratoryTable(
        schema=LABORATORIES_SCHEMA,
        pack=PackNotes(name=pack.name, version=pack.manifest.version, sha256=pack.sha256),
        program=ProgramNotes(version=version("rbc-engine"), commit=_kernels.commit),
        engine=engine,
        collection=collection,
        bootstrap=BootstrapNotes(resamples=resamples, seed=seed, percent=PERCENT),
        laboratories=tuple(rows),
        summary=summarize(rows),
        warnings=tuple(warnings),
    )


def _seen(pack: Pack, name: str, *, held_out: bool) -> list[str]:
    notes = pack.manifest.training
    if name not in str(notes.get(LABORATORIES_NOTE, "")).split(", "):
        return []
    if held_out and notes.get(HELD_OUT_NOTE, False):
        return []
    return [f"{name}: the pack was trained on these images, so the figures are optimistic"]


def _decode(fields: Iterable[JudgedField]) -> Iterator[Decoded]:
    for field in fields:
        name = str(field.path)
        ref = FieldRef(slide=field.laboratory, field=name, path=field.path)
        frame = Frame(
            pixels=read_image(field.path, name=name),
            slide=field.laboratory,
            field=field.path.name,
        )
        yield Decoded(ref=ref, frame=frame)
