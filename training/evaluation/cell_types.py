"""Measure the classification of regions: their types, and whether they are abnormal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.training.evaluation.measures import statistics
from rbc_engine.training.evaluation.measures.bootstrap import Bootstrap
from rbc_engine.training.evaluation.result import (
    SUBSETS,
    CellTypeMeasures,
    Measure,
    SingleCells,
    Subset,
    TypeMeasures,
    TypeSection,
)
from rbc_engine.training.evaluation.samples import Kind, Mask, TypeSample, in_subset

__all__ = ["MEAN_EXAMPLES", "RARE_SHARE", "WORST_EXAMPLES", "measure_types"]

MEAN_EXAMPLES = 20
"""Types with fewer examples are excluded from the mean AUC: theirs means little."""

WORST_EXAMPLES = 50

RARE_SHARE = 0.05
"""A type held by a smaller share of a field's typed regions is rare there."""


def measure_types(sample: TypeSample, types: Sequence[str], bootstrap: Bootstrap) -> TypeSection:
    """Measure the types of a sample. types: T names."""
    return TypeSection(
        subsets={subset: _measure(sample, types, subset, bootstrap) for subset in SUBSETS},
        single_cells=_measure_single_cells(sample, types, bootstrap),
    )


def _measure(
    sample: TypeSample, types: Sequence[str], subset: Subset, bootstrap: Bootstrap
) -> TypeMeasures:
    count = sample.groups
    chosen = in_subset(sample.kinds, subset)
    missed = sample.missed_groups[in_subset(sample.missed_kinds, subset)]
    groups, held = sample.region_groups[chosen], sample.held[chosen]
    exact = (held == sample.has[chosen]).all(axis=1)
    abnormal, called = sample.abnormal[chosen], sample.called[chosen]
    aucs = {
        name: statistics.roc_auc(
            held[:, index], sample.probabilities[chosen, index], groups, count=count
        )
        for index, name in enumerate(types)
    }
    per_type = {
        name: CellTypeMeasures(
            examples=int(held[:, index].sum()),
            auc=bootstrap.measure(aucs[name]),
            average_precision=bootstrap.measure(
                _average_precision(sample, chosen, index),
            ),
            calibration_error=bootstrap.measure(
                statistics.calibration_error(
                    held[:, index], sample.probabilities[chosen, index], groups, count=count
                )
            ),
        )
        for index, name in enumerate(types)
    }
    averaged = _with_auc(per_type, MEAN_EXAMPLES)
    worst = min(_with_auc(per_type, WORST_EXAMPLES).items(), key=lambda item: item[1], default=None)
    return TypeMeasures(
        regions=len(held),
        exact_match=bootstrap.measure(statistics.share(exact, groups, count=count)),
        exact_match_missed_wrong=bootstrap.measure(
            statistics.share(
                np.append(exact, np.zeros(len(missed), bool)),
                np.append(groups, missed),
                count=count,
            )
        ),
        mean_auc=bootstrap.measure(statistics.mean_of([aucs[name] for name in averaged])),
        mean_auc_types=len(averaged),
        worst_type=worst[0] if worst else None,
        worst_auc=per_type[worst[0]].auc if worst else Measure(value=None, low=None, high=None),
        abnormal_accuracy=bootstrap.measure(
            statistics.share(abnormal == called, groups, count=count)
        ),
        abnormal_auc=bootstrap.measure(
            statistics.roc_auc(abnormal, sample.abnormal_p[chosen], groups, count=count)
        ),
        per_type=per_type,
    )


def _average_precision(sample: TypeSample, chosen: Mask, index: int) -> statistics.Statistic:
    held, groups = sample.held[chosen, index], sample.region_groups[chosen]
    return statistics.average_precision(
        held,
        sample.probabilities[chosen, index],
        groups,
        truths=np.bincount(groups, held, sample.groups).astype(np.float64),
    )


def _with_auc(per_type: dict[str, CellTypeMeasures], examples: int) -> dict[str, float]:
    """Return the AUC of the types that have one, and at least this many examples."""
    return {
        name: measures.auc.value
        for name, measures in per_type.items()
        if measures.auc.value is not None and measures.examples >= examples
    }


def _measure_single_cells(
    sample: TypeSample, types: Sequence[str], bootstrap: Bootstrap
) -> SingleCells:
    # Labels may give one cell several types; then none of them is the one.
    chosen = (sample.kinds == Kind.SINGLE) & (sample.held.sum(axis=1) == 1)
    groups = sample.region_groups[chosen]
    truth = sample.held[chosen].argmax(axis=1)
    predicted = sample.probabilities[chosen].argmax(axis=1)
    right = truth == predicted
    rare = sample.field_share[chosen] < RARE_SHARE
    counts = statistics.confusions(truth, predicted, groups, count=sample.groups, types=len(types))
    return SingleCells(
        regions=int(chosen.sum()),
        accuracy=bootstrap.measure(statistics.share(right, groups, count=sample.groups)),
        macro_f1=bootstrap.measure(statistics.macro_f1(counts)),
        rare=int(rare.sum()),
        rare_accuracy=bootstrap.measure(
            statistics.share(right[rare], groups[rare], count=sample.groups)
        ),
        confusion=counts.sum(axis=0).astype(int).tolist(),
    )
