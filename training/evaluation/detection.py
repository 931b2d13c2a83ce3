"""Measure detections."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rbc_engine.training.evaluation.measures import statistics
from rbc_engine.training.evaluation.measures.bootstrap import Bootstrap
from rbc_engine.training.evaluation.measures.statistics import Floats, Statistic
from rbc_engine.training.evaluation.result import (
    SUBSETS,
    DetectionMeasures,
    Subset,
)
from rbc_engine.training.evaluation.samples import (
    DetectionSample,
    Ints,
    Kind,
    Mask,
    in_subset,
)

__all__ = ["eligible_detections", "measure_detections"]


def eligible_detections(kinds: Ints, subset: Subset) -> Mask:
    """Return bool [D], the detections that count in a subset: those on its regions, and those on
    background, in every one.

    kinds: int64 [D], of DetectionSample.found_kinds at one IoU.
    """
    eligible: Mask = in_subset(kinds, subset) | (kinds == Kind.NONE)
    return eligible


def measure_detections(
    sample: DetectionSample, bootstrap: Bootstrap
) -> dict[Subset, DetectionMeasures]:
    return {subset: _measure(sample, subset, bootstrap) for subset in SUBSETS}


def _measure(sample: DetectionSample, subset: Subset, bootstrap: Bootstrap) -> DetectionMeasures:
    truth = in_subset(sample.truth_kinds, subset)
    centres = in_subset(sample.centre_kinds, subset)
    truths = np.bincount(sample.truth_groups[truth], minlength=sample.groups).astype(np.float64)
    ap50, *_ = _ranked(statistics.average_precision, sample, subset, truths)
    ap50_95 = statistics.mean_of(_ranked(statistics.coco_average_precision, sample, subset, truths))
    found = statistics.share(
        sample.truth_found[truth], sample.truth_groups[truth], count=sample.groups
    )
    centres_hit = statistics.share(
        sample.centre_hit[centres], sample.centre_groups[centres], count=sample.groups
    )
    eligible = sample.kept & eligible_detections(sample.found_kinds[0], subset)
    unmatched, on_background = (
        statistics.share(mask[eligible], sample.found_groups[eligible], count=sample.groups)
        for mask in (~sample.right[0], sample.found_kinds[0] == Kind.NONE)
    )
    return DetectionMeasures(
        regions=int(truth.sum()),
        labelled_cells=int(centres.sum()),
        ap50=bootstrap.measure(ap50),
        ap50_95=bootstrap.measure(ap50_95),
        found=bootstrap.measure(found),
        centres_hit=bootstrap.measure(centres_hit),
        detections=int(eligible.sum()),
        unmatched=bootstrap.measure(unmatched),
        on_background=bootstrap.measure(on_background),
    )


def _ranked(
    measure: Callable[..., Statistic], sample: DetectionSample, subset: Subset, truths: Floats
) -> list[Statistic]:
    """Return a measure of the ranked detections at each of IOUS."""
    ranked = []
    for right, kinds in zip(sample.right, sample.found_kinds, strict=True):
        eligible = eligible_detections(kinds, subset)
        ranked.append(
            measure(
                right[eligible],
                sample.scores[eligible],
                sample.found_groups[eligible],
                truths=truths,
            )
        )
    return ranked
