"""Repeat measurements: without the warm-up, several things in turn, medians with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rbc_engine.errors import UsageError

__all__ = ["Fit", "Spread", "fit_power", "in_turn", "ratio_spread", "spread", "time_passes"]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Hold the distribution of `n` measurements; q1 and q3 are quartiles."""

    median: float
    q1: float
    q3: float
    min: float
    max: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Hold cost = factor * size ** exponent. error: standard error of the exponent; None with fewer
    than three points.
    """

    exponent: float
    factor: float
    error: float | None


def spread(values: Sequence[float]) -> Spread:
    """Summarise values; raise UsageError if there are none."""
    if not len(values):
        raise UsageError("a spread needs at least one measurement (got none)")
    low, q1, median, q3, high = np.quantile(np.asarray(values, np.float64), [0, 0.25, 0.5, 0.75, 1])
    return Spread(
        median=float(median),
        q1=float(q1),
        q3=float(q3),
        min=float(low),
        max=float(high),
        n=len(values),
    )


def ratio_spread(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Summarise ratios of measurements taken in turn: what slows both leaves their ratio
    unchanged.
    """
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])


def time_passes(run: Callable[[], object], *, warm_up: int, repeats: int) -> list[float]:
    """Return the seconds of each repeat of `run`, after `warm_up` calls that do not count."""
    (seconds,) = in_turn({"": run}, warm_up=warm_up, repeats=repeats).values()
    return seconds


def in_turn(
    runs: Mapping[str, Callable[[], object]], *, warm_up: int, repeats: int
) -> dict[str, list[float]]:
    """Return the seconds of each repeat of each of `runs`, in turn (A B A B), so a change of speed
    affects all.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def fit_power(sizes: Sequence[float], costs: Sequence[float]) -> Fit:
    """Fit a power law to the points by least squares of the logarithms.

    sizes, costs: positive. Raises UsageError with fewer than two different sizes.
    """
    if len(set(sizes)) < 2 or min(*sizes, *costs) <= 0:
        raise UsageError(
            f"a fit needs positive costs at two or more positive sizes (got {list(sizes)}, "
            f"{list(costs)})"
        )
    x, y = np.log(np.asarray(sizes, np.float64)), np.log(np.asarray(costs, np.float64))
    around = x - x.mean()
    exponent = float((around * y).sum() / (around**2).sum())
    offset = float(y.mean() - exponent * x.mean())
    error = None
    if len(x) > 2:
        residuals = y - (offset + exponent * x)
        error = float(np.sqrt((residuals**2).sum() / (len(x) - 2) / (around**2).sum()))
    return Fit(exponent=exponent, factor=float(np.exp(offset)), error=error)
