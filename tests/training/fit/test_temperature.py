"""Temperatures, against probabilities whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from rbc_engine.training.fit.temperature import fit_temperature, fit_temperatures, tempered
from rbc_engine.training.fit.thresholds import best_f1_thresholds


def overconfident(temperature: float, *, count: int = 20_000, seed: int = 0):
    """Probabilities of a network whose logits are too large by a known factor, and what is really held."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.0, 1.5, count)
    held = rng.random(count) < 1 / (1 + np.exp(-logits))
    p = 1 / (1 + np.exp(-logits * temperature))
    return p.astype(np.float32), held


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.0])
def test_the_temperature_is_found(temperature: float) -> None:
    p, held = overconfident(temperature)
    assert fit_temperature(p, held) == pytest.approx(temperature, rel=0.06)


def test_tempered_probabilities_are_shares() -> None:
    p, held = overconfident(3.0)
    groups = np.repeat(np.arange(20).astype(str), 1000)
    both = np.stack([p, p[::-1]], axis=1)
    truth = np.stack([held, held[::-1]], axis=1)
    report = fit_temperatures(both, truth, groups)
    assert report.error_before > 0.05
    assert report.error_after < 0.015
    shares = tempered(both, report.temperatures)[:, 0]
    for low in np.arange(0, 1, 0.2):
        inside = (shares >= low) & (shares < low + 0.2)
        assert held[inside].mean() == pytest.approx(shares[inside].mean(), abs=0.03)


def test_a_type_with_few_examples_is_left_as_it_is() -> None:
    p, held = overconfident(3.0, count=400)
    rare = np.zeros(400, bool)
    rare[:19] = True
    groups = np.repeat(np.arange(4).astype(str), 100)
    report = fit_temperatures(np.stack([p, p], axis=1), np.stack([held, rare], axis=1), groups)
    assert report.temperatures[1] == 1.0
    assert report.temperatures[0] > 1.5


def test_thresholds_have_the_best_f1() -> None:
    rng = np.random.default_rng(0)
    held = np.stack([rng.random(3000) < 0.3, np.arange(3000) < 12], axis=1)
    p = np.clip(rng.normal(0.3 + 0.3 * held, 0.15), 0, 1).astype(np.float32)
    chosen = best_f1_thresholds(held, p)
    assert chosen[1] is None, "12 examples are too few"

    def f1(threshold: float) -> float:
        said = p[:, 0] >= np.float32(threshold)
        right = (said & held[:, 0]).sum()
        return 2 * right / (said.sum() + held[:, 0].sum())

    assert f1(chosen[0]) == max(f1(t) for t in np.linspace(0.05, 0.95, 91))
