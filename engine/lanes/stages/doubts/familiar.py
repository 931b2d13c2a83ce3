"""Tell frames that are unlike those that a pack was trained on, by their light, stain, focus and
outlines, before any network sees them.

A frame is described by a few numbers from measure_field. Their distance is Mahalanobis's (1936,
Proc. Natl. Inst. Sci. India 2:49), from the mean over the laboratories of the training, in units of
the spread within and between them, over the root of how many numbers there are: about 1 for a frame
as in training.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rbc_engine.lanes.measure import FieldMeasure
from rbc_engine.packs.manifest import FamiliaritySettings

__all__ = ["MOST_DISTANCE", "Familiarity", "describe_field"]

MOST_DISTANCE = 1000.0
"""Distances are cut off here: beyond it a number means nothing."""

_LEAST_FOREGROUND = 0.005
_USUAL_LEVEL = 200.0
_LEAST_DENSITY = 0.01
_BLUNTEST = 2.0

Floats = npt.NDArray[np.float64]


def describe_field(measure: FieldMeasure, frame_hw: tuple[int, int]) -> Floats | None:
    """Return the numbers of FIELD_FEATURES, float64 [K]; None for a frame with nothing on it."""
    if measure.foreground < _LEAST_FOREGROUND:
        return None
    background = np.maximum(np.array(measure.background), 1.0)
    density = np.array(measure.density)
    strength = max(float(np.sqrt((density**2).sum())), _LEAST_DENSITY)
    foreground = min(max(measure.foreground, 0.01), 0.99)
    edge = _BLUNTEST
    if measure.cell_px is not None and measure.edge_px is not None:
        edge = min(max(measure.edge_px / measure.cell_px, 0.02), _BLUNTEST)
    covered_px = foreground * measure.lit_share * frame_hw[0] * frame_hw[1] / measure.shrunk_by**2
    cell_px = (measure.cell_px or 10.0 * measure.shrunk_by) / measure.shrunk_by
    outlines = max(measure.arc_count, 1) * cell_px / max(covered_px, 1.0)
    return np.array(
        [
            math.log(float(background.mean()) / _USUAL_LEVEL),
            math.log(background[0] / background[1]),
            math.log(background[2] / background[1]),
            math.log(strength),
            *(density / strength),
            math.log(foreground / (1 - foreground)),
            math.log(edge),
            math.sqrt(max(measure.confidence, 0.0)),
            math.sqrt(max(measure.arc_spread, 0.0)),
            math.log(outlines),
        ]
    )


class Familiarity:
    """Measure distances for one pack."""

    def __init__(self, settings: FamiliaritySettings) -> None:
        self._mean = np.array(settings.mean, np.float64)
        self._precision = np.array(settings.precision, np.float64)
        self._threshold = settings.threshold

    @classmethod
    def of(cls, settings: FamiliaritySettings | None) -> Familiarity | None:
        """Return that of a pack; None if the pack does not know what it was trained on."""
        return None if settings is None else cls(settings)

    def distance(self, described: Floats) -> float:
        """Return the distance of a described field, 0..MOST_DISTANCE."""
        apart = described - self._mean
        squared = max(float(apart @ self._precision @ apart), 0.0) / len(apart)
        return min(math.sqrt(squared), MOST_DISTANCE)

    def is_strange(self, distance: float) -> bool:
        """Return whether a field at this distance is unfamiliar."""
        return distance > self._threshold
