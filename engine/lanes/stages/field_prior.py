"""Correct probabilities for the mix of types in a field.

A classifier assumes its training mix, and every smear has its own: in a field full of elliptocytes,
an ambiguous cell is more likely an elliptocyte. The frequency of each type in a field is estimated
from the probabilities themselves, by the EM algorithm of Saerens, Latinne and Decaestecker 2002
(Adjusting the outputs of a classifier to new a priori probabilities, section 2.2), here for regions
that may hold several types: the types compete, so that a region holds as many types as before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rbc_engine.packs.manifest import ClassifierSettings, FieldPriorSettings
from rbc_engine.types.arrays import Float32

__all__ = ["FieldPrior", "informative_regions"]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_ROUNDS = 5
# From where the previous round ended: one more step then changes nothing that a float32 can
# represent.
_NEWTON_STEPS = 4
_LONGEST_STEP = 2.0
# Nearer to 0 or 1 the logit of a float32 is meaningless.
_NEAREST = 1e-6
_SURE = 0.5


def informative_regions(scores: Float32, border: Mask) -> Mask:
    """Return bool [R], the regions that a field's mix is estimated from: surely cells, and not cut
    by its edge.

    scores: float32 [R], the detector's. border: bool [R].
    """
    return np.asarray((scores >= _SURE) & ~border)


class FieldPrior:
    """Correct probabilities for one pack."""

    def __init__(self, settings: FieldPriorSettings) -> None:
        self._trained = np.array(settings.frequencies, np.float64)
        self._cells = settings.cells

    @classmethod
    def of(cls, settings: ClassifierSettings) -> FieldPrior | None:
        """Return the prior of a pack; None if it has none."""
        return None if settings.field_prior is None else cls(settings.field_prior)

    def __call__(self, probabilities: Float32, informative: Mask, counts: Sequence[int]) -> Float32:
        """Correct the probabilities of the regions of some fields, each field separately.

        probabilities: float32 [R, T]. informative: bool [R], see informative_regions.
        counts: regions of each field, which sum to R.

        Returns float32 [R, T]. The sum of a region's probabilities does not change.
        """
        filled = np.array([count for count in counts if count], np.int64)
        if not len(filled):
            return probabilities
        field = np.repeat(np.arange(len(filled)), filled)
        begins = np.concatenate([[0], np.cumsum(filled)[:-1]])
        # A region that overflowed, as float16 may, must not affect its whole field.
        counted = (informative & np.isfinite(probabilities).all(axis=1))[:, None]
        known = np.add.reduceat(counted.astype(np.float64), begins) + self._cells

        p = np.clip(probabilities.astype(np.float64), _NEAREST, 1 - _NEAREST)
        logits = np.log(p) - np.log1p(-p)
        held = p.sum(axis=1, keepdims=True)
        corrected, offset = p, np.zeros_like(held)
        for _ in range(_ROUNDS):
            common = np.add.reduceat(np.where(counted, corrected, 0.0), begins)
            common = (common + self._cells * self._trained) / known
            shifted = logits + np.log(common / self._trained)[field]
            corrected, offset = _competing(shifted, held, offset)
        return corrected.astype(np.float32)


def _competing(logits: Floats, held: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Return the probabilities of logits - offset, with the offset of each region that makes them
    sum to `held`.

    logits: [R, T]. held: [R, 1]. offset: [R, 1], initial values.
    """
    for _ in range(_NEWTON_STEPS):
        p = _sigmoid(logits - offset)
        slope = (p * (1 - p)).sum(axis=1, keepdims=True)
        step = (p.sum(axis=1, keepdims=True) - held) / slope
        offset = offset + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
    return _sigmoid(logits - offset), offset


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)))
