"""Collect the magnitudes of a tensor over many runs, and choose the range that quantises it
best.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["METHODS", "Histogram", "choose_range"]

# Bins are the upper half of a float32 without its sign: eight bits of exponent, seven of mantissa.
# Each is 0.8 % wide wherever the value lies, so no range has to be known beforehand.
# Everything after the last bin is infinite or NaN.
_BINS = 0x7F80
_LEVELS = 127  # of int8, without its sign
_ENTROPY_BINS = 2048

Counts = npt.NDArray[np.int64]


class Histogram:
    """Count absolute values.

    counts: int64 [32640], by the upper bits of the float32. largest: the largest absolute value so
    far.
    infinite: whether a value was not finite.
    """

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(_BINS, np.int64)
        self.largest = 0.0
        self.infinite = False

    def add(self, values: npt.NDArray[np.generic]) -> None:
        """Count more values: floats of any shape."""
        flat = np.ascontiguousarray(values, np.float32).ravel()
        if not flat.size:
            return
        bits = flat.view(np.uint32) >> 16 & np.uint32(0x7FFF)
        if bits.max() >= _BINS:
            self.infinite = True
            return
        self.counts += np.bincount(bits, minlength=_BINS)
        self.largest = max(self.largest, float(np.abs(flat).max()))

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Return the value in the middle of each bin, float64 [32640]."""
        bits = (np.arange(_BINS, dtype=np.uint32) << 16) | np.uint32(1 << 15)
        return np.asarray(bits.view(np.float32), np.float64)


def choose_range(histogram: Histogram, method: str) -> float:
    """Choose the absolute value up to which a tensor is quantised; larger ones are clipped.

    method: one of METHODS.
    """
    return min(METHODS[method](histogram), histogram.largest)


def _percentile(share: float) -> Callable[[Histogram], float]:
    def choose(histogram: Histogram) -> float:
        below = np.cumsum(histogram.counts)
        return float(histogram.centres[np.searchsorted(below, share * below[-1])])

    return choose


def _mse(histogram: Histogram) -> float:
    """Return the range with the least squared error of rounding and clipping, summed over all
    values.
    """
    there = np.flatnonzero(histogram.counts)
    values, counts = histogram.centres[there], histogram.counts[there]
    best, least = histogram.largest, np.inf
    for candidate in histogram.largest * np.linspace(0.2, 1.0, 81):
        step = candidate / _LEVELS
        error = values - np.minimum(np.rint(values / step), _LEVELS) * step
        total = float((counts * error**2).sum())
        if total < least:
            best, least = float(candidate), total
    return best


def _entropy(histogram: Histogram) -> float:
    """Return the range whose 128 levels lose the least information, by Kullback-Leibler divergence.

    S. Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    # Zeros, half of what follows a ReLU, are represented exactly at any range; spread over a level
    # they would decide alone.
    there = 1 + np.flatnonzero(histogram.counts[1:])
    edges = np.linspace(0.0, histogram.largest, _ENTROPY_BINS + 1)
    linear, _ = np.histogram(
        np.minimum(histogram.centres[there], histogram.largest),
        bins=edges,
        weights=histogram.counts[there].astype(np.float64),
    )
    levels = _LEVELS + 1
    best, least = histogram.largest, np.inf
    for kept in range(levels, _ENTROPY_BINS + 1, 16):
        p = linear[:kept].copy()
        begins = np.linspace(0, kept, levels, endpoint=False).astype(np.int64)
        filled = p > 0
        sums = np.add.reduceat(p, begins)
        counts = np.add.reduceat(filled.astype(np.float64), begins)
        level = np.searchsorted(begins, np.arange(kept), side="right") - 1
        q = np.where(filled, sums[level] / np.maximum(counts[level], 1.0), 0.0)
        p[-1] += linear[kept:].sum()
        if q[-1] == 0:
            q[-1] = 1.0
        here = p > 0
        q = np.where(q > 0, q, 1e-9)
        ratio = (p[here] / p.sum()) / (q[here] / q.sum())
        divergence = float((p[here] / p.sum() * np.log(ratio)).sum())
        if divergence < least:
            best, least = float(edges[kept]), divergence
    return best


METHODS: dict[str, Callable[[Histogram], float]] = {
    "max": lambda histogram: histogram.largest,
    "percentile 99.99": _percentile(0.9999),
    "percentile 99.9": _percentile(0.999),
    "mse": _mse,
    "entropy": _entropy,
}
"""Methods of choosing a range, the widest first."""
