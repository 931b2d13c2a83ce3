"""Weighted statistics against scikit-learn and plain loops, and the bootstrap against resampling
the data themselves.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from rbc_engine.training.evaluation.measures import metrics, statistics
from rbc_engine.training.evaluation.measures.bootstrap import Bootstrap

GROUPS, ITEMS, TYPES = 4, 40, 3


class Sample:
    """Random items in groups, with ties among the probabilities; and how often each group
    counts.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.groups = rng.integers(0, GROUPS, ITEMS)
        self.held = rng.random(ITEMS) < rng.choice([0.1, 0.5])
        self.p = (rng.integers(0, 21, ITEMS) / 20).astype(np.float32)
        self.truth, self.predicted = rng.integers(0, TYPES, (2, ITEMS))
        self.weights = rng.integers(0, 3, (5, GROUPS)).astype(np.float64)

    def repeats(self, row):
        """Indices of the items, each as often as its group counts."""
        return np.repeat(np.arange(ITEMS), row[self.groups].astype(int))


samples = st.integers(0, 2**32 - 1).map(Sample)


def assert_rows(statistic, sample, slow):
    """slow: of indices of items, NaN where the measure does not exist."""
    expected = [slow(sample.repeats(row)) for row in sample.weights]
    np.testing.assert_allclose(statistic(sample.weights), expected, atol=1e-12)


@given(samples)
def test_share(sample):
    def slow(items):
        return sample.held[items].mean() if len(items) else math.nan

    assert_rows(statistics.share(sample.held, sample.groups, count=GROUPS), sample, slow)


@given(samples)
def test_roc_auc(sample):
    def slow(items):
        held = sample.held[items]
        return roc_auc_score(held, sample.p[items]) if 0 < held.sum() < len(held) else math.nan

    assert_rows(
        statistics.roc_auc(sample.held, sample.p, sample.groups, count=GROUPS), sample, slow
    )


@given(samples)
def test_average_precisions(sample):
    truths = np.bincount(sample.groups, sample.held, GROUPS) + np.arange(GROUPS)

    def slow(measure, row):
        items = sample.repeats(row)
        there = int(sum(row[group] * truths[group] for group in range(GROUPS)))
        return measure(sample.held[items], sample.p[items], truths=there)

    for name in ("average_precision", "coco_average_precision"):
        statistic = getattr(statistics, name)(sample.held, sample.p, sample.groups, truths=truths)
        expected = [slow(getattr(metrics, name), row) for row in sample.weights]
        np.testing.assert_allclose(statistic(sample.weights), expected, atol=1e-12)


@given(samples)
def test_macro_f1(sample):
    def slow(items):
        truth, predicted = sample.truth[items], sample.predicted[items]
        if not len(items):
            return math.nan
        return f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)

    counts = statistics.confusions(
        sample.truth, sample.predicted, sample.groups, count=GROUPS, types=TYPES
    )
    assert_rows(statistics.macro_f1(counts), sample, slow)
    right = np.trace(counts.sum(axis=0)) / ITEMS
    assert right == pytest.approx(accuracy_score(sample.truth, sample.predicted))


@given(samples)
def test_calibration_error(sample):
    def slow(items):
        total = 0.0
        for low in range(10):
            in_bin = [
                i
                for i in items
                if low <= 10 * sample.p[i] < low + 1 or (low == 9 and sample.p[i] == 1)
            ]
            total += abs(sum(float(sample.p[i]) - sample.held[i] for i in in_bin))
        return total / len(items) if len(items) else math.nan

    statistic = statistics.calibration_error(sample.held, sample.p, sample.groups, count=GROUPS)
    assert_rows(statistic, sample, slow)


def test_mean_leaves_out_what_does_not_exist():
    ones = np.ones((2, 1))
    parts = [lambda w: np.array([1.0, np.nan]), lambda w: np.array([3.0, np.nan])]
    np.testing.assert_array_equal(statistics.mean_of(parts)(ones), [2.0, np.nan])
    parts.append(lambda w: np.array([np.nan, 7.0]))
    np.testing.assert_array_equal(statistics.mean_of(parts)(ones), [2.0, 7.0])
    assert np.isnan(statistics.mean_of([])(ones)).all()


def test_bootstrap_is_the_percentiles_of_resampled_data():
    """The very groups drawn, put together again and measured by scikit-learn."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(6), [5, 30, 12, 8, 20, 9])
    held = rng.random(len(groups)) < 0.3
    p = (rng.random(len(groups)) / 2 + held * rng.random(len(groups)) / 2).astype(np.float32)
    bootstrap = Bootstrap(6, resamples=400, seed=5)
    measure = bootstrap.measure(statistics.roc_auc(held, p, groups, count=6))
    assert measure.value == pytest.approx(roc_auc_score(held, p))
    aucs = []
    for row in bootstrap.weights:
        drawn = [group for group in range(6) for _ in range(int(row[group]))]
        items = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        aucs.append(roc_auc_score(held[items], p[items]))
    aucs.sort()
    # Linear interpolation between order statistics, at 2.5 % and 97.5 % of the way.
    ends = [
        aucs[int(at)] + (at - int(at)) * (aucs[int(at) + 1] - aucs[int(at)])
        for at in (0.025 * 399, 0.975 * 399)
    ]
    assert [measure.low, measure.high] == pytest.approx(ends)
    assert measure.low < measure.value < measure.high


def test_draws_are_as_many_as_there_are_groups_and_even():
    weights = Bootstrap(8, resamples=4000, seed=0).weights
    assert (weights.sum(axis=1) == 8).all()
    # Counts of 8 draws of 1/8 each: mean 1, variance 7/8.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=5 * math.sqrt(7 / 8 / 4000))
    np.testing.assert_allclose(weights.var(axis=0), 7 / 8, rtol=0.15)
    np.testing.assert_array_equal(weights, Bootstrap(8, resamples=4000, seed=0).weights)
    assert (weights != Bootstrap(8, resamples=4000, seed=1).weights).any()


def test_no_interval_where_it_would_mean_nothing():
    one = Bootstrap(1, resamples=100, seed=0).measure(lambda weights: weights[:, 0] * 0.5)
    assert (one.value, one.low, one.high) == (0.5, None, None)

    def rarely(weights):
        return np.where(weights[:, 0] == 1, 0.5, np.nan)

    # The first of ten groups is drawn exactly once in 39 % of the resamples.
    rare = Bootstrap(10, resamples=500, seed=0).measure(rarely)
    assert (rare.value, rare.low, rare.high) == (0.5, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        never = Bootstrap(3, resamples=50, seed=0).measure(
            statistics.share(np.zeros(0, bool), np.zeros(0, np.int64), count=3)
        )
    assert (never.value, never.low, never.high) == (None, None, None)
