"""Measure a pack by what the engine finds in held-out fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.engine import Engine
from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.types.arrays import Float32
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = ["Findings", "analyze_fields", "measure"]

MIN_EXAMPLES = 20
"""The AUC of a type with fewer regions means little."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Findings:
    """Hold what the engine found in some fields, matched to the truth.

    found: the red regions of each field.
    matches: for each field int64 [D], indices into its true regions, -1 for a false one.
    saturated: fields in which the detector filled its fixed-size output, so that regions may be
    missing.
    results: of a new run, the engine's results of the fields.
    """

    fields: Sequence[LabelledField]
    found: Sequence[Regions]
    matches: Sequence[npt.NDArray[np.int64]]
    saturated: int = 0
    results: Sequence[FieldResult] = ()

    @classmethod
    def matched(
        cls,
        fields: Sequence[LabelledField],
        found: Sequence[Regions],
        *,
        saturated: int,
        results: Sequence[FieldResult] = (),
    ) -> Findings:
        """Match found regions to true ones at an IoU of 0.5.

        Labels are those of red cells: a white cell or platelet that was found is neither a false
        region nor one without a type.
        """
        red = [regions.take(regions.red) for regions in found]
        matches = [
            metrics.match_regions(regions.boxes, regions.scores, field.boxes)
            for field, regions in zip(fields, red, strict=True)
        ]
        return cls(fields=fields, found=red, matches=matches, saturated=saturated, results=results)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Return whether each detection is matched, bool [all D], field after field."""
        return np.concatenate([match >= 0 for match in self.matches])

    @property
    def scores(self) -> Float32:
        """Return the scores of all detections, float32 [all D]."""
        return np.concatenate([regions.scores for regions in self.found])


def analyze_fields(engine: Engine, fields: Sequence[LabelledField]) -> Findings:
    """Run the engine over fields, and match its regions to theirs at an IoU of 0.5.

    Raises ImageError if one cannot be analysed.
    """
    found, results = [], []
    saturated = 0
    for result in engine.run(_decode(fields)):
        if result.regions is None:
            raise ImageError(f"{result.path}: {result.error}")
        found.append(result.regions)
        results.append(result)
        saturated += result.saturated
    return Findings.matched(fields, found, saturated=saturated, results=results)


def measure(
    findings: Findings,
    *,
    score_threshold: float,
    types: Sequence[str],
    abnormal: Sequence[str],
    digits: int = 4,
) -> dict[str, float | int]:
    """Return the measures of a pack, rounded, with names that state what each is over.

    Types are scored on matched regions with every cell labelled. What cannot be measured on these
    fields is omitted.

    findings: of an engine whose own score threshold is not higher.
    score_threshold: detections under it count only for the average precision.
    """
    fields, correct, scores = findings.fields, findings.correct, findings.scores
    kept = scores >= np.float32(score_threshold)
    truths = sum(len(field.boxes) for field in fields)
    hits = [
        metrics.centres_hit(
            regions.boxes[regions.scores >= np.float32(score_threshold)], field.centres
        )
        for field, regions in zip(fields, findings.found, strict=True)
    ]
    values: dict[str, float | int] = {
        "fields": len(fields),
        "smear_groups": len({field.group for field in fields}),
        "regions": truths,
        "labelled_cells": sum(len(field.centres) for field in fields),
        "ap50": metrics.average_precision(correct, scores, truths=truths),
        "region_recall_at_score_threshold": float((correct & kept).sum()) / max(truths, 1),
        "false_region_share_at_score_threshold": metrics.share(~correct[kept]),
        "cell_centre_hit_recall": metrics.share(np.concatenate(hits)),
    }
    values |= _measure_types(findings, score_threshold, types, abnormal)
    return {
        name: value if isinstance(value, int) else round(value, digits)
        for name, value in values.items()
        if not math.isnan(value)
    }


def _measure_types(
    findings: Findings, score_threshold: float, types: Sequence[str], abnormal: Sequence[str]
) -> dict[str, float | int]:
    truth, cells, probabilities, has, called = [], [], [], [], []
    for field, regions, match in zip(
        findings.fields, findings.found, findings.matches, strict=True
    ):
        matched = np.flatnonzero((match >= 0) & (regions.scores >= np.float32(score_threshold)))
        matched = matched[field.known[match[matched]]]
        truth.append(field.types[match[matched]])
        cells.append(field.cells[match[matched]])
        probabilities.append(regions.probabilities[matched])
        has.append(regions.has[matched])
        called.append(regions.abnormal[matched])
    held, p = np.concatenate(truth), np.concatenate(probabilities)
    single = np.concatenate(cells) == 1
    is_abnormal = held[:, np.isin(types, abnormal)].any(axis=1)
    aucs = metrics.type_aucs(held, p, min_examples=MIN_EXAMPLES)
    measured = np.isfinite(aucs)
    accuracy, macro_f1 = metrics.single_cell_scores(held[single], p[single])
    return {
        "typed_regions": len(held),
        "typed_single_cells": int(single.sum()),
        "exact_match_typed_regions": metrics.exact_match(held, np.concatenate(has)),
        "accuracy_single_cells": accuracy,
        "macro_f1_single_cells": macro_f1,
        f"mean_auc_types_with_{MIN_EXAMPLES}_regions": float(
            aucs[measured].mean() if measured.any() else np.nan
        ),
        f"types_with_{MIN_EXAMPLES}_regions": int(measured.sum()),
        **{f"auc_{name}": float(auc) for name, auc in zip(types, aucs, strict=True)},
        # The caller was trained on these smears; the cross-validated figure next to it is the
        # honest one.
        "abnormal_accuracy_typed_regions_caller_trained_on_these_smears": metrics.share(
            np.concatenate(called) == is_abnormal
        ),
    }


def _decode(fields: Sequence[LabelledField]) -> Iterator[Decoded]:
    for field in fields:
        name = str(field.path)
        ref = FieldRef(slide=field.group, field=name, path=field.path)
        frame = Frame(
            pixels=read_image(field.path, name=name), slide=field.group, field=field.path.name
        )
        yield Decoded(ref=ref, frame=frame)
