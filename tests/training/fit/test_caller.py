"""The caller in the engine's own stage against scikit-learn, and the honesty of its report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from rbc_engine.errors import UsageError
from rbc_engine.lanes.stages.call import Caller
from rbc_engine.training.fit import caller as caller_module
from rbc_engine.training.fit.caller import train_caller


def draw(regions: int, *, seed: int = 0):
    """Probabilities of four types, of which the last three are abnormal, and the smear of each
    region.
    """
    rng = np.random.default_rng(seed)
    types = rng.random((regions, 4)) < (0.7, 0.1, 0.2, 0.05)
    noise = rng.normal(0, 1.2, types.shape)
    probabilities = (1 / (1 + np.exp(-(4.0 * types - 2 + noise)))).astype(np.float32)
    return probabilities, types[:, 1:].any(axis=1), rng.choice(list("pqrstu"), regions)


def engine_caller(checkpoint: bytes, types: int) -> Caller:
    """The engine's stage on a pack that holds this checkpoint."""
    pack = SimpleNamespace(folder=Path("pack"), types=("t",) * types, read=lambda name: checkpoint)
    return Caller(pack)


def test_the_engine_calls_as_scikit_learn_does():
    probabilities, abnormal, groups = draw(400)
    checkpoint, report = train_caller(probabilities, abnormal, groups, seed=3)
    reference = GradientBoostingClassifier(
        n_estimators=30, max_depth=1, min_samples_leaf=0.02, subsample=0.5, random_state=3
    )
    reference.fit(probabilities, abnormal)
    unseen = np.concatenate([draw(300, seed=1)[0], probabilities])
    got = engine_caller(checkpoint, 4)(unseen)
    # The sum of the trees, divided by the temperature.
    margin = reference.decision_function(unseen) / report.temperature
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-margin)), rtol=0, atol=1e-6)
    assert abs(report.temperature - 1) > 0.01, "or the test does not see it"
    assert report.regions == 400
    assert report.folds == 5
    assert 0.8 < report.accuracy < 1
    assert 0.8 < report.auc < 1


def test_a_smear_is_evaluated_without_itself():
    """Features that only identify the smear predict all of the smears seen, and nothing else."""
    rng = np.random.default_rng(0)
    smear = np.repeat(np.arange(6), 40)
    abnormal = smear % 2 == 1
    abnormal ^= rng.random(len(abnormal)) < 0.1
    probabilities = np.eye(6, dtype=np.float32)[smear]
    checkpoint, report = train_caller(probabilities, abnormal, smear.astype(str), seed=0)
    seen = (engine_caller(checkpoint, 6)(probabilities) >= 0.5) == abnormal
    assert seen.mean() > 0.85
    assert report.accuracy < 0.7


def test_too_few_smears_are_refused():
    probabilities, abnormal, groups = draw(60)
    with pytest.raises(UsageError, match=r"at least 2 held-out smears \(got 1\)"):
        train_caller(probabilities, abnormal, np.full(60, "p"), seed=0)
    with pytest.raises(UsageError, match="all labelled regions are normal or all are abnormal"):
        train_caller(probabilities, np.zeros(60, bool), groups, seed=0)


def test_another_answer_of_treelite_is_noticed(monkeypatch: pytest.MonkeyPatch):
    probabilities, abnormal, groups = draw(80)
    predict = caller_module.treelite.gtil.predict
    monkeypatch.setattr(
        caller_module.treelite.gtil, "predict", lambda model, data: predict(model, data) + 2e-6
    )
    with pytest.raises(ValueError, match="differ from scikit-learn's by 2e-06"):
        train_caller(probabilities, abnormal, groups, seed=0)
