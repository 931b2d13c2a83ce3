"""Compute intervals by resampling smears: fields of one smear are alike, and single regions would
feign more data.
"""

from __future__ import annotations

import numpy as np

from rbc_engine.training.evaluation.measures.statistics import Floats, Statistic
from rbc_engine.training.evaluation.result import Measure

__all__ = ["PERCENT", "Bootstrap"]

PERCENT = 95.0
"""Percentage of the resamples between the ends of an interval, with as many under it as over it."""

_LEAST_SHARE = 0.5


class Bootstrap:
    """Run the percentile bootstrap over G smear groups (Efron 1979): G drawn with replacement,
    `resamples` times.

    All measures see the same resamples.

    weights: float64 [resamples, G], how often each group was drawn.
    """

    def __init__(self, groups: int, *, resamples: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
        self.weights: Floats = draws.astype(np.float64)

    def measure(self, statistic: Statistic) -> Measure:
        """Return the measure on the groups as they are, and the 95 % interval.

        Resamples in which the measure does not exist are excluded. There is no interval if they are
        more than half, or if there is only one group.
        """
        groups = self.weights.shape[1]
        value = float(statistic(np.ones((1, groups)))[0])
        if not np.isfinite(value):
            return Measure(value=None, low=None, high=None)
        values = statistic(self.weights)
        values = values[np.isfinite(values)]
        if groups < 2 or len(values) < _LEAST_SHARE * len(self.weights):
            return Measure(value=value, low=None, high=None)
        low, high = np.percentile(values, [50 - PERCENT / 2, 50 + PERCENT / 2])
        return Measure(value=value, low=float(low), high=float(high))
