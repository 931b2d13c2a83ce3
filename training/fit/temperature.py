"""Calibrate probabilities: one temperature per type, fitted to smears that the networks never saw.

A temperature divides the logit (Guo et al. 2017, On calibration of modern neural networks, section
4.2). It has no offset on purpose: that would be the frequency of a type on a few smears, which says
nothing of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.model_selection import GroupKFold

from rbc_engine.training.evaluation.measures import statistics
from rbc_engine.types.arrays import Float32

__all__ = ["TemperatureReport", "fit_temperature", "fit_temperatures", "tempered"]

_FEWEST_EXAMPLES = 20
_LIMITS = (0.25, 4.0)
_MOST_FOLDS = 5
# A probability is a float32: nearer to 0 or 1 its logit is noise.
_NEAREST = 1e-6

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class TemperatureReport:
    """Report the fit. temperatures: float64 [T]; 1 for a type with too few examples.

    error_before, error_after: expected calibration error, mean over the types with enough examples.
    After: each region with temperatures that were fitted without its smear.
    """

    temperatures: Floats
    error_before: float
    error_after: float


def fit_temperatures(
    probabilities: Float32, held: Mask, groups: npt.NDArray[np.str_]
) -> TemperatureReport:
    """Fit temperatures to probabilities float32 [R, T] of regions on which the networks were not
    trained. held: bool [R, T].

    groups: R smear groups, at least two different ones.
    """
    enough = [
        index
        for index in range(held.shape[1])
        if _FEWEST_EXAMPLES <= held[:, index].sum() <= len(held) - _FEWEST_EXAMPLES
    ]
    out_of_fold = probabilities.copy()
    folds = GroupKFold(min(_MOST_FOLDS, len(np.unique(groups))))
    for train, held_out in folds.split(probabilities, groups=groups):
        fitted = _fit(probabilities[train], held[train], enough)
        out_of_fold[held_out] = tempered(probabilities[held_out], fitted)
    return TemperatureReport(
        temperatures=_fit(probabilities, held, enough),
        error_before=_mean_error(probabilities, held, enough),
        error_after=_mean_error(out_of_fold, held, enough),
    )


def fit_temperature(probabilities: npt.NDArray[np.floating], held: Mask) -> float:
    """Return the temperature of one type, or of the caller: that with the least negative log
    likelihood.

    probabilities: [R]. held: bool [R].
    """
    logits = _logits(probabilities)
    signs = np.where(held, 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -signs * logits / np.exp(log_temperature)).mean())

    low, high = np.log(_LIMITS)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def tempered(probabilities: npt.NDArray[np.floating], temperatures: Floats) -> Float32:
    """Return probabilities float [R, T] with their logits divided by temperatures [T]."""
    return np.asarray(1.0 / (1.0 + np.exp(-_logits(probabilities) / temperatures)), np.float32)


def _fit(probabilities: Float32, held: Mask, enough: Sequence[int]) -> Floats:
    temperatures = np.ones(held.shape[1])
    for index in enough:
        if held[:, index].any() and not held[:, index].all():
            temperatures[index] = fit_temperature(probabilities[:, index], held[:, index])
    return temperatures


def _mean_error(probabilities: Float32, held: Mask, enough: Sequence[int]) -> float:
    one = np.zeros(len(held), np.int64)
    errors = [
        statistics.calibration_error(held[:, index], probabilities[:, index], one, count=1)(
            np.ones((1, 1))
        )[0]
        for index in enough
    ]
    return float(np.mean(errors)) if errors else float("nan")


def _logits(probabilities: npt.NDArray[np.floating]) -> Floats:
    p = np.clip(probabilities.astype(np.float64), _NEAREST, 1 - _NEAREST)
    return np.asarray(np.log(p) - np.log1p(-p))
