"""The Wilson interval against its definition and against scipy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rbc_engine.stats.wilson import wilson_interval

Z = 1.959963984540054


@st.composite
def counts(draw):
    trials = draw(st.integers(1, 10**7))
    return draw(st.integers(0, trials)), trials


@given(counts())
def test_agrees_with_scipy(case):
    expected = binomtest(*case).proportion_ci(0.95, method="wilson")
    assert wilson_interval(*case) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts())
def test_ends_solve_the_score_equation(case):
    successes, trials = case
    share = successes / trials
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        # The standard error is that of the end itself: what sets the score interval apart from the textbook's.
        distance = Z * math.sqrt(end * (1 - end) / trials)
        assert abs(share - end) == pytest.approx(distance, rel=1e-6, abs=1e-9)


def test_nothing_and_everything_are_exact():
    assert wilson_interval(0, 40)[0] == 0.0
    assert wilson_interval(40, 40)[1] == 1.0


@pytest.mark.parametrize("case", [(0, 0), (-1, 4), (5, 4), (0, -1)])
def test_impossible_counts_are_refused(case):
    with pytest.raises(ValueError, match=r"successes must lie in 0\.\.trials"):
        wilson_interval(*case)
