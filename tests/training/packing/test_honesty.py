"""When a pack doubts its results: thresholds and rates against what they were drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from rbc_engine.errors import UsageError
from rbc_engine.lanes.stages.doubts.familiar import Familiarity
from rbc_engine.packs.manifest import FIELD_FEATURES
from rbc_engine.training.packing.honesty import (
    DescribedFields,
    calling_rates,
    choose_uncovered_above,
    choose_unsure_below,
    fit_familiarity,
)

WIDTH = len(FIELD_FEATURES)


def described(rng, *, laboratories=3, smears=10, fields=6, between=1.0):
    """Fields that vary between laboratories, smears and within each."""
    numbers, names, groups = [], [], []
    for laboratory in range(laboratories):
        centre = rng.normal(0, between, WIDTH)
        for smear in range(smears):
            of_smear = centre + rng.normal(0, 0.5, WIDTH)
            numbers += [of_smear + rng.normal(0, 0.3, WIDTH) for _ in range(fields)]
            names += [f"lab{laboratory}"] * fields
            groups += [f"lab{laboratory}/{smear}"] * fields
    return DescribedFields(
        numbers=np.array(numbers), laboratories=np.array(names), smears=np.array(groups)
    )


def test_the_false_alarms_are_those_asked_for_also_on_new_smears():
    rng = np.random.default_rng(0)
    fields = described(rng, smears=40)
    halves = np.isin(fields.smears, np.unique(fields.smears)[::2])
    first = DescribedFields(
        numbers=fields.numbers[halves],
        laboratories=fields.laboratories[halves],
        smears=fields.smears[halves],
    )
    settings = fit_familiarity(first, false_alarms=0.05)
    assert settings.false_alarms == pytest.approx(0.05, abs=0.01)
    familiarity = Familiarity(settings)
    strange = [familiarity.is_strange(familiarity.distance(row)) for row in fields.numbers[~halves]]
    assert np.mean(strange) < 0.12
    far = fields.numbers + 6
    assert all(familiarity.is_strange(familiarity.distance(row)) for row in far)


def test_statistics_are_the_same_every_time_and_of_few_fields_refused():
    fields = described(np.random.default_rng(1))
    assert fit_familiarity(fields) == fit_familiarity(fields)
    few = DescribedFields(
        numbers=fields.numbers[:20],
        laboratories=fields.laboratories[:20],
        smears=fields.smears[:20],
    )
    with pytest.raises(UsageError, match="at least 50"):
        fit_familiarity(few)


def test_equal_fields_can_be_told_from_others():
    numbers = np.zeros((60, WIDTH))
    names = np.repeat(["a", "b"], 30)
    smears = np.array([f"s{n}" for n in range(60)])
    settings = fit_familiarity(DescribedFields(numbers=numbers, laboratories=names, smears=smears))
    assert Familiarity(settings).distance(np.full(WIDTH, 0.5)) > settings.threshold


def test_uncovered_above_gives_each_laboratory_the_same_weight():
    values = np.concatenate([np.full(900, 0.01), np.linspace(0, 0.5, 101)])
    names = np.repeat(["large", "small"], [900, 101])
    assert choose_uncovered_above(values, names, false_alarms=0.05) == pytest.approx(0.45, abs=0.01)


@pytest.mark.parametrize(("catch", "most"), [(0.5, 0.1), (0.9, 0.1), (0.3, 0.02)])
def test_unsure_below_catches_errors_within_the_bound(catch, most):
    rng = np.random.default_rng(2)
    likeliest = rng.beta(6, 1.5, 4000).astype(np.float32)
    wrong = rng.random(4000) > likeliest
    names = np.repeat(["a", "b"], [3000, 1000])
    choice = choose_unsure_below(likeliest, wrong, names, catch=catch, most_unsure=most)
    under = likeliest < choice.below
    assert choice.caught == pytest.approx(under[wrong].mean())
    assert choice.unsure == pytest.approx(max(under[:3000].mean(), under[3000:].mean()))
    assert choice.unsure <= most
    # Either what was asked for is caught, or no more may be marked.
    assert choice.caught >= catch - 0.01 or choice.unsure > most - 0.01


def test_without_an_error_as_many_are_unsure_as_may_be():
    likeliest = np.linspace(0, 1, 101)[1:]
    choice = choose_unsure_below(likeliest, np.zeros(100, bool), ["a"] * 100, most_unsure=0.1)
    assert choice.unsure == pytest.approx(0.1, abs=0.011)
    assert np.isnan(choice.caught)


def test_independent_regions_count_as_they_are():
    rng = np.random.default_rng(3)
    abnormal = np.repeat([True, False], 4000)
    called = rng.random(8000) < np.where(abnormal, 0.9, 0.2)
    smears = rng.integers(0, 80, 8000).astype(str)
    names = rng.choice(["a", "b", "c", "d", "e"], 8000)
    sensitivity, specificity = calling_rates(called, abnormal, smears, names)
    assert sensitivity.value == pytest.approx(0.9, abs=0.02)
    assert specificity.value == pytest.approx(0.8, abs=0.02)
    # The variance between five laboratories is itself not known well.
    assert sensitivity.trials > 600
    assert specificity.trials > 600


def test_alike_smears_or_laboratories_leave_more_doubt():
    rng = np.random.default_rng(4)
    smear = np.repeat(np.arange(40), 100)
    share = np.clip(rng.normal(0.85, 0.1, 40), 0, 1)
    right = rng.random(4000) < share[smear]
    abnormal = np.arange(4000) % 2 == 0
    called = np.where(abnormal, right, ~right)
    names = (smear % 8).astype(str)
    sensitivity, _ = calling_rates(called, abnormal, smear.astype(str), names)
    assert sensitivity.trials < 700
    # As many independent regions would have the variance that the smears have.
    spread = np.sqrt(sensitivity.value * (1 - sensitivity.value) / sensitivity.trials)
    assert spread == pytest.approx(share.std() / np.sqrt(40), rel=0.6)
    assert sensitivity.successes <= sensitivity.trials


def test_rates_need_normal_and_abnormal_regions():
    with pytest.raises(UsageError, match="both kinds"):
        calling_rates(np.ones(9, bool), np.ones(9, bool), ["s"] * 9, ["l"] * 9)
    sensitivity, specificity = calling_rates(
        np.array([True, False]), np.array([True, False]), ["s", "t"], ["l", "l"]
    )
    assert (sensitivity.value, specificity.value) == (1.0, 1.0)
