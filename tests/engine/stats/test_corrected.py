"""The corrected share, against the true one, and its interval, against its coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.stats.corrected import corrected_share
from rbc_engine.stats.wilson import wilson_interval


@dataclass
class Rate:
    successes: int
    trials: int


@given(st.floats(0, 1), st.integers(60, 100), st.integers(60, 100), st.integers(1, 2000))
def test_errors_of_known_size_are_undone(share, sensitivity, specificity, regions):
    """Of the regions that such a pack would call abnormal on average, the true share comes back."""
    called = share * sensitivity / 100 + (1 - share) * (1 - specificity / 100)
    found = corrected_share(
        round(called * regions * 100), regions * 100,
        sensitivity=Rate(sensitivity * 10**6, 10**8), specificity=Rate(specificity * 10**6, 10**8),
    )  # fmt: skip
    assert found[0] == pytest.approx(share, abs=0.5 / regions / 10 + 1e-6)
    assert 0 <= found[1] <= found[0] <= found[2] <= 1


@given(st.integers(0, 200), st.integers(1, 200))
def test_a_pack_that_never_errs_changes_little(positive, more):
    regions = positive + more
    sure = Rate(10**8, 10**8)
    share, low, high = corrected_share(positive, regions, sensitivity=sure, specificity=sure)
    assert share == pytest.approx(positive / regions)
    # Much like Wilson's, which is another formula for the same.
    assert (low, high) == pytest.approx(wilson_interval(positive, regions), abs=0.06)


@pytest.mark.parametrize(
    ("share", "sensitivity", "specificity", "trials", "regions"),
    [
        (0.1, 0.95, 0.85, 300, 500),
        (0.02, 0.95, 0.9, 1000, 2000),
        (0.6, 0.9, 0.8, 100, 400),
        (0.0, 0.95, 0.9, 200, 300),
    ],
)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(
    share, sensitivity, specificity, trials, regions
):
    rng = np.random.default_rng(0)
    called = share * sensitivity + (1 - share) * (1 - specificity)
    held = 0
    for _ in range(1000):
        found = corrected_share(
            int(rng.binomial(regions, called)), regions,
            sensitivity=Rate(int(rng.binomial(trials, sensitivity)), trials),
            specificity=Rate(int(rng.binomial(trials, specificity)), trials),
        )  # fmt: skip
        held += found[1] <= share <= found[2]
    assert held / 1000 > 0.93


def test_what_is_not_known_gives_nothing():
    good, guess = Rate(9, 10), Rate(1, 10)
    assert corrected_share(0, 0, sensitivity=good, specificity=good) is None
    assert corrected_share(1, 2, sensitivity=None, specificity=good) is None
    assert corrected_share(1, 2, sensitivity=good, specificity=None) is None
    assert corrected_share(1, 2, sensitivity=good, specificity=guess) is None
