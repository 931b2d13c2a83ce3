"""Ranges, against the same search over the raw values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbc_engine.calibration.histogram import METHODS, Histogram, choose_range


def values(seed: int, count: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-3, 3)
    tail = rng.standard_t(3, count)
    return (np.maximum(tail, 0.0 if seed % 2 else -np.inf) * scale).astype(np.float32)


def filled(*arrays: np.ndarray) -> Histogram:
    histogram = Histogram()
    for array in arrays:
        histogram.add(array)
    return histogram


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
@settings(max_examples=100)
def test_bins_hold_every_value_within_their_width(numbers) -> None:
    array = np.array(numbers, np.float32)
    histogram = filled(array)
    assert histogram.counts.sum() == len(array)
    assert histogram.largest == np.abs(array).max()
    in_order = np.sort(np.abs(array)).astype(np.float64)
    sampled = np.repeat(histogram.centres, histogram.counts)
    normal = in_order > 1e-37
    np.testing.assert_allclose(sampled[normal], in_order[normal], rtol=0.005)


def test_parts_add_up() -> None:
    whole = values(0)
    parts = filled(whole[:7000].reshape(70, 100), whole[7000:], whole[:0])
    assert (parts.counts == filled(whole).counts).all()


@pytest.mark.parametrize("seed", range(6))
def test_percentiles_are_those_of_the_values(seed: int) -> None:
    array = values(seed)
    for share in (0.999, 0.9999):
        got = choose_range(filled(array), f"percentile {share * 100:g}")
        expected = np.quantile(np.abs(array), share, method="inverted_cdf")
        assert got == pytest.approx(expected, rel=0.01)


def squared_error(array: np.ndarray, largest: float) -> float:
    step = largest / 127
    return float(np.square(array - np.clip(np.rint(array / step), -127, 127) * step).sum())


@pytest.mark.parametrize("seed", range(6))
def test_mse_is_within_a_percent_of_the_best_of_all(seed: int) -> None:
    array = values(seed).astype(np.float64)
    best = min(squared_error(array, f * np.abs(array).max()) for f in np.linspace(0.2, 1.0, 81))
    got = squared_error(array, choose_range(filled(array), "mse"))
    assert got <= 1.05 * best


def test_entropy_cuts_a_long_tail_and_keeps_a_full_range() -> None:
    rng = np.random.default_rng(0)
    flat = rng.uniform(0, 8, 50_000).astype(np.float32)
    assert choose_range(filled(flat), "entropy") > 7.5
    tailed = np.append(np.abs(rng.standard_normal(50_000)), [100.0]).astype(np.float32)
    assert choose_range(filled(tailed), "entropy") < 50.0


@pytest.mark.parametrize("method", METHODS)
def test_no_method_goes_beyond_what_was_seen(method: str) -> None:
    for seed in range(4):
        array = values(seed)
        assert 0 < choose_range(filled(array), method) <= np.abs(array).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_remembered(bad: float) -> None:
    assert filled(np.array([1.0, bad], np.float32)).infinite
