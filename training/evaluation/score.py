"""Score a pack on labelled smears, from the choice of the smears to all measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from rbc_engine import _kernels
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.evaluation_fields import (
    choose_fields,
    in_pack_order,
    warn_of_training,
)
from rbc_engine.training.evaluation.cell_types import measure_types
from rbc_engine.training.evaluation.detection import measure_detections
from rbc_engine.training.evaluation.earlier_run import read_earlier_run
from rbc_engine.training.evaluation.findings import Findings, analyze_fields
from rbc_engine.training.evaluation.measures.bootstrap import PERCENT, Bootstrap
from rbc_engine.training.evaluation.observe import classify_true_boxes, open_at_floor
from rbc_engine.training.evaluation.result import (
    SCHEMA,
    BootstrapNotes,
    DataNotes,
    EngineNotes,
    Evaluation,
    PackNotes,
    ProgramNotes,
)
from rbc_engine.training.evaluation.samples import (
    DetectionSample,
    Kind,
    TypeSample,
    detection_sample,
    region_kinds,
    type_sample,
)
from rbc_engine.types.results import FieldResult

__all__ = ["RESAMPLES", "Scored", "score_pack"]

RESAMPLES = 1000

Log = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored:
    """Hold the measures, and what they were computed from, for the plots.

    types: None if types are not scored. results: of a new run, of each field.
    """

    evaluation: Evaluation
    detections: DetectionSample
    types: TypeSample | None
    results: Sequence[FieldResult] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class _Observed:
    findings: Findings
    true_boxes: Findings | None
    notes: EngineNotes


def score_pack(
    pack: Pack,
    dataset: Dataset,
    *,
    data_format: str,
    groups: Sequence[str] | None = None,
    held_out: bool = False,
    regions: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    resamples: int = RESAMPLES,
    log: Log,
) -> Scored:
    """Score the engine's results on a dataset's fields.

    groups: the smear groups to use. held_out: use those held out of the pack's training. Neither:
    all.
    regions: regions.parquet of an earlier run of this pack, instead of a new run.
    device, precision: of the run, as `Engine.open` takes them.
    seed: of the bootstrap.

    Raises UsageError for a choice that cannot be scored, ImageError for a field that cannot be
    analysed, DeviceError for a device that is not available.
    """
    chosen = choose_fields(pack, dataset, groups=groups, held_out=held_out)
    fields, untyped = in_pack_order(pack, dataset, chosen)
    warnings = [*dataset.notes, *warn_of_training(pack, dataset, fields)]
    if untyped is not None:
        warnings.append(untyped)
    elif absent := [name for name in pack.types if name not in dataset.types]:
        warnings.append(
            f"these data never label {', '.join(absent)}: a region classified as one counts as "
            "wrong"
        )
    if regions is None:
        log(f"analysing {len(fields)} fields")
        observed = _run(pack, fields, device=device, precision=precision, typed=untyped is None)
    else:
        observed = _reread(regions, pack, fields)
        warnings.append(
            "regions of an earlier run: detections under the score threshold were not written, so "
            "average precisions are cut off there, and true boxes were not scored"
        )
    if observed.notes.saturated_fields:
        warnings.append(
            f"{observed.notes.saturated_fields} fields filled the detector's output of "
            f"{pack.manifest.detector.max_regions} regions: the least sure detections are missing "
            "there"
        )

    threshold = pack.manifest.detector.score_threshold
    detections = detection_sample(observed.findings, score_threshold=threshold)
    abnormal = np.isin(pack.types, pack.manifest.abnormal)
    matched, given = (
        type_sample(findings, score_threshold=threshold, abnormal_types=abnormal)
        if findings is not None and untyped is None
        else None
        for findings in (observed.findings, observed.true_boxes)
    )
    data = _describe(dataset, fields, data_format)
    if len(data.smear_groups) < 2:
        warnings.append("only one smear group: there are no intervals")
    log(f"resampling {len(data.smear_groups)} smear groups {resamples} times")
    bootstrap = Bootstrap(len(data.smear_groups), resamples=resamples, seed=seed)
    evaluation = Evaluation(
        schema=SCHEMA,
        pack=PackNotes(name=pack.name, version=pack.manifest.version, sha256=pack.sha256),
        program=ProgramNotes(version=version("rbc-engine"), commit=_kernels.commit),
        engine=observed.notes,
        data=data,
        types=pack.types,
        bootstrap=BootstrapNotes(resamples=resamples, seed=seed, percent=PERCENT),
        detection=measure_detections(detections, bootstrap),
        types_of_detections=(
            None if matched is None else measure_types(matched, pack.types, bootstrap)
        ),
        types_of_true_boxes=(
            None if given is None else measure_types(given, pack.types, bootstrap)
        ),
        warnings=tuple(warnings),
    )
    return Scored(
        evaluation=evaluation,
        detections=detections,
        types=matched,
        results=observed.findings.results,
    )


def _run(
    pack: Pack, fields: Sequence[LabelledField], *, device: str, precision: str, typed: bool
) -> _Observed:
    engine, floor = open_at_floor(pack, device=device, precision=precision)
    with engine:
        findings = analyze_fields(engine, fields)
        true_boxes = classify_true_boxes(engine, fields) if typed else None
        used = engine.choice.device
        notes = EngineNotes(
            source="live run",
            device=used.name,
            backend=used.backend,
            precision=used.precision,
            score_threshold=pack.manifest.detector.score_threshold,
            score_floor=floor,
            saturated_fields=findings.saturated,
        )
    return _Observed(findings=findings, true_boxes=true_boxes, notes=notes)


def _reread(regions: Path, pack: Pack, fields: Sequence[LabelledField]) -> _Observed:
    run = read_earlier_run(regions, pack=pack, fields=fields)
    threshold = pack.manifest.detector.score_threshold
    notes = EngineNotes(
        source="regions.parquet",
        device=run.device,
        backend=run.backend,
        precision=run.precision,
        score_threshold=threshold,
        score_floor=threshold,
        saturated_fields=run.findings.saturated,
    )
    return _Observed(findings=run.findings, true_boxes=None, notes=notes)


def _describe(dataset: Dataset, fields: Sequence[LabelledField], data_format: str) -> DataNotes:
    kinds = np.concatenate([region_kinds(field) for field in fields])
    return DataNotes(
        format=data_format,
        name=dataset.name,
        smear_groups=tuple(sorted({field.group for field in fields})),
        fields=len(fields),
        regions=len(kinds),
        single_cell_regions=int((kinds == Kind.SINGLE).sum()),
        several_cell_regions=int((kinds == Kind.SEVERAL).sum()),
        typed_regions=sum(int(field.known.sum()) for field in fields),
        labelled_cells=sum(len(field.centres) for field in fields),
    )
