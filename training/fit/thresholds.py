"""Choose thresholds of the types for a stated aim."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32

__all__ = ["best_f1_thresholds"]

_FEWEST_EXAMPLES = 20
_CANDIDATES = np.linspace(0.05, 0.95, 91)


def best_f1_thresholds(
    held: npt.NDArray[np.bool_], probabilities: Float32
) -> tuple[float | None, ...]:
    """Return for each type the threshold with the best F1, the middle one of equals; None with too
    few examples.

    held: bool [R, T]. probabilities: float32 [R, T].
    """
    chosen: list[float | None] = []
    for index in range(held.shape[1]):
        truth = held[:, index]
        if truth.sum() < _FEWEST_EXAMPLES:
            chosen.append(None)
            continue
        said = probabilities[:, index, None] >= _CANDIDATES[None].astype(np.float32)
        right = (said & truth[:, None]).sum(axis=0)
        f1 = 2 * right / (said.sum(axis=0) + truth.sum())
        best = np.flatnonzero(f1 == f1.max())
        chosen.append(round(float(_CANDIDATES[best[len(best) // 2]]), 3))
    return tuple(chosen)
