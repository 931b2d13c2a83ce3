"""Turn the counts of a laboratory's fields into measures with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.evaluation_fields import in_pack_order
from rbc_engine.training.datasets.laboratories.base import RED, WHITE_CELL
from rbc_engine.training.datasets.laboratories.judged import JudgedLaboratory
from rbc_engine.training.evaluation.cell_types import measure_types
from rbc_engine.training.evaluation.detection import measure_detections
from rbc_engine.training.evaluation.findings import Findings
from rbc_engine.training.evaluation.laboratories.laboratory_table import (
    MEASURES,
    TYPE_MEASURES,
    LaboratoryRow,
    Summary,
)
from rbc_engine.training.evaluation.laboratories.tally import Tally, tally
from rbc_engine.training.evaluation.measures import statistics
from rbc_engine.training.evaluation.measures.bootstrap import Bootstrap
from rbc_engine.training.evaluation.result import Measure
from rbc_engine.training.evaluation.samples import detection_sample, type_sample
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = ["measure_laboratory", "summarize"]

_CELL_AP = "cell_ap50"


def measure_laboratory(
    pack: Pack,
    laboratory: JudgedLaboratory,
    results: Sequence[FieldResult],
    *,
    held_out: bool,
    resamples: int,
    seed: int,
) -> tuple[LaboratoryRow, list[str]]:
    """Return the row of a laboratory, and warnings.

    results: of its fields, with regions. held_out: whether the fields are only those that training
    holds out.
    """
    entry, fields = laboratory.entry, laboratory.fields
    names = sorted({field.group for field in fields})
    groups = np.array([names.index(field.group) for field in fields], np.int64)
    bootstrap = Bootstrap(len(names), resamples=resamples, seed=seed)
    of_cells = pack.manifest.detector.unit == "cell"
    tallies = [
        tally(
            field,
            result,
            of_cells=of_cells,
            unsure=pack.manifest.classifier.unsure_below is not None,
            healthy=entry.healthy,
            middle=entry.middle == "other",
        )
        for field, result in zip(fields, results, strict=True)
    ]
    measures = {}
    for name in MEASURES:
        if name == _CELL_AP:
            measures[name] = _cell_precision(tallies, groups, bootstrap)
            continue
        shares = [getattr(one, name) for one in tallies]
        hits = np.bincount(groups, [share.hits for share in shares], len(names))
        items = np.bincount(groups, [share.items for share in shares], len(names))
        measures[name] = bootstrap.measure(statistics.ratio(hits, items))
    types: dict[str, Measure] | None = None
    warnings: list[str] = []
    if laboratory.typed is not None:
        regions = [result.regions for result in results if result.regions is not None]
        types, warnings = _measure_types(pack, laboratory, regions, bootstrap)
    row = LaboratoryRow(
        name=entry.name,
        licence=entry.licence,
        use="held out" if held_out else "all",
        fields=len(fields),
        groups=len(names),
        red_cells=sum(int((field.kinds == RED).sum()) for field in fields),
        white_cells=sum(int((field.kinds == WHITE_CELL).sum()) for field in fields),
        measures=measures,
        types=types,
    )
    return row, warnings


def summarize(rows: Sequence[LaboratoryRow]) -> dict[str, Summary]:
    """Return the mean and the worst of each measure over the laboratories that have it."""
    found = {}
    for name, (_, more_is_better) in MEASURES.items():
        values = {
            row.name: value for row in rows if (value := row.measures[name].value) is not None
        }
        if values:
            worst = (min if more_is_better else max)(values, key=values.__getitem__)
            found[name] = Summary(
                laboratories=len(values),
                mean=sum(values.values()) / len(values),
                worst=values[worst],
                worst_laboratory=worst,
            )
    return found


def _cell_precision(
    tallies: Sequence[Tally],
    groups: np.ndarray[tuple[int], np.dtype[np.int64]],
    bootstrap: Bootstrap,
) -> Measure:
    truths = np.bincount(groups, [one.cells for one in tallies], int(groups.max()) + 1).astype(
        float
    )
    return bootstrap.measure(
        statistics.average_precision(
            np.concatenate([one.cells_right for one in tallies]),
            np.concatenate([one.cell_scores for one in tallies]),
            np.repeat(groups, [len(one.cell_scores) for one in tallies]),
            truths=truths,
        )
    )


def _measure_types(
    pack: Pack, laboratory: JudgedLaboratory, regions: Sequence[Regions], bootstrap: Bootstrap
) -> tuple[dict[str, Measure] | None, list[str]]:
    labelled = [field.labels for field in laboratory.fields if field.labels is not None]
    assert laboratory.typed is not None
    fields, reason = in_pack_order(pack, laboratory.typed, labelled)
    if reason is not None:
        return None, [f"{laboratory.entry.name}: {reason}"]
    findings = Findings.matched(fields, regions, saturated=0)
    threshold = pack.manifest.detector.score_threshold
    detections = measure_detections(
        detection_sample(findings, score_threshold=threshold), bootstrap
    )
    sample = type_sample(
        findings,
        score_threshold=threshold,
        abnormal_types=np.isin(pack.types, pack.manifest.abnormal),
    )
    section = measure_types(sample, pack.types, bootstrap)
    every, count = section.subsets["all"], sample.groups

    def right(chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Measure:
        correct = sample.called[chosen] == sample.abnormal[chosen]
        return bootstrap.measure(
            statistics.share(correct, sample.region_groups[chosen], count=count)
        )

    measures = {
        "region_ap50": detections["all"].ap50,
        "mean_auc": every.mean_auc,
        "worst_auc": every.worst_auc,
        "exact": every.exact_match,
        "exact_several": section.subsets["several_cells"].exact_match,
        "single_accuracy": section.single_cells.accuracy,
        "single_macro_f1": section.single_cells.macro_f1,
        "abnormal_accuracy": every.abnormal_accuracy,
        "abnormal_auc": every.abnormal_auc,
        "specificity": right(~sample.abnormal),
        "sensitivity": right(sample.abnormal),
    }
    return {name: measures[name] for name in TYPE_MEASURES}, []
