"""Compute measures as functions of the weights of the smear groups, for all resamples of a
bootstrap at once.

A statistic takes weights float64 [B, G], how often each of the G groups counts in each of B
resamples, and returns float64 [B], NaN where the measure does not exist. At weights of one it is
the plain measure. Each keeps the sums over groups, if the measure allows it, and no longer needs
single regions.

`groups` is int64 [N] throughout: the group, 0..count - 1, of every item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.types.arrays import Float32

__all__ = [
    "CALIBRATION_BINS",
    "Statistic",
    "average_precision",
    "calibration_bin",
    "calibration_error",
    "coco_average_precision",
    "confusions",
    "macro_f1",
    "mean_of",
    "ratio",
    "roc_auc",
    "share",
]

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Statistic = Callable[[Floats], Floats]

CALIBRATION_BINS = 10


def share(mask: Mask, groups: Groups, *, count: int) -> Statistic:
    """Return the share of a bool array that is True."""
    hits = np.bincount(groups, mask, count)
    return ratio(hits, np.bincount(groups, minlength=count))


def ratio(
    hits: npt.NDArray[np.floating | np.integer], items: npt.NDArray[np.floating | np.integer]
) -> Statistic:
    """Return the ratio of two sums over groups. hits, items: [G], of each group."""
    return lambda weights: _divide(weights @ hits, weights @ items)


def roc_auc(held: Mask, scores: Float32, groups: Groups, *, count: int) -> Statistic:
    """Return the area under the ROC curve: the share of pairs, one item held and one not, in which
    the first scores higher.

    A tie counts half. The pairs are counted by their two groups, once.
    """
    wins = np.zeros((count, count))
    for other in range(count):
        below = np.sort(scores[~held & (groups == other)])
        left, right = (np.searchsorted(below, scores[held], side) for side in ("left", "right"))
        wins[:, other] = np.bincount(groups[held], (left + right) / 2, count)
    with_it = np.bincount(groups[held], minlength=count)
    without = np.bincount(groups[~held], minlength=count)
    return lambda weights: _divide(
        ((weights @ wins) * weights).sum(axis=1), (weights @ with_it) * (weights @ without)
    )


def average_precision(
    correct: Mask, scores: Float32, groups: Groups, *, truths: Floats
) -> Statistic:
    """Return the area under the precision-recall curve. truths: float64 [G], the number of true
    regions in each group.
    """
    return _by_resample(metrics.average_precision, correct, scores, groups, truths)


def coco_average_precision(
    correct: Mask, scores: Float32, groups: Groups, *, truths: Floats
) -> Statistic:
    """Return the mean precision at COCO's 101 recalls. truths: as in average_precision."""
    return _by_resample(metrics.coco_average_precision, correct, scores, groups, truths)


def confusions(
    truth: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    groups: Groups,
    *,
    count: int,
    types: int,
) -> Floats:
    """Return float64 [G, T, T]: how many items of a group and a type (row) are predicted as a type
    (column).
    """
    counts = np.zeros((count, types, types))
    np.add.at(counts, (groups, truth, predicted), 1)
    return counts


def macro_f1(counts: Floats) -> Statistic:
    """Return the mean F1 over the types that occur in the truth. counts: of `confusions`."""

    def statistic(weights: Floats) -> Floats:
        confusion = np.tensordot(weights, counts, 1)
        right = np.diagonal(confusion, axis1=1, axis2=2)
        truth, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        f1 = _divide(2 * right, truth + predicted)
        occurs = truth > 0
        return _divide(np.where(occurs, f1, 0).sum(axis=1), occurs.sum(axis=1))

    return statistic


def calibration_bin(probabilities: Float32) -> npt.NDArray[np.int64]:
    """Return int64 [N], the index of each probability among CALIBRATION_BINS of equal width; 1 is
    in the last.
    """
    return np.minimum(probabilities * CALIBRATION_BINS, CALIBRATION_BINS - 1).astype(np.int64)


def calibration_error(
    held: Mask, probabilities: Float32, groups: Groups, *, count: int
) -> Statistic:
    """Return the expected calibration error: |mean probability - share held| of each bin, weighted
    by its items.
    """
    excess = np.zeros((count, CALIBRATION_BINS))
    np.add.at(
        excess, (groups, calibration_bin(probabilities)), probabilities.astype(np.float64) - held
    )
    items = np.bincount(groups, minlength=count)
    return lambda weights: _divide(np.abs(weights @ excess).sum(axis=1), weights @ items)


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Return the mean of those statistics that exist."""

    def statistic(weights: Floats) -> Floats:
        if not statistics:
            return np.full(len(weights), np.nan)
        values = np.stack([one(weights) for one in statistics])
        return _divide(np.nansum(values, axis=0), np.isfinite(values).sum(axis=0))

    return statistic


def _by_resample(
    measure: Callable[..., float], correct: Mask, scores: Float32, groups: Groups, truths: Floats
) -> Statistic:
    """Return a statistic for a measure that needs the whole ranking."""
    # Sorted once, so that the measure's own sort takes no time.
    order = np.argsort(-scores, kind="stable")
    correct, scores, groups = correct[order], scores[order], groups[order]
    return lambda weights: np.array(
        [
            measure(correct, scores, truths=float(row @ truths), weights=row[groups])
            for row in weights
        ]
    )


def _divide(numerator: Floats, denominator: npt.NDArray[np.floating | np.integer]) -> Floats:
    """Divide; NaN where the denominator is 0."""
    quotient: Floats = np.divide(
        numerator,
        denominator,
        out=np.full(np.shape(numerator), np.nan),
        where=np.asarray(denominator) > 0,
    )
    return quotient
