"""Count the regions that keep a type below its threshold, because no other is likelier."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rbc_engine.packs.manifest import Manifest
from rbc_engine.types.results import FieldResult

__all__ = ["StayingTypes"]


class StayingTypes:
    """Count, over the fields of a recall, what raised thresholds did not let go."""

    def __init__(self, manifest: Manifest) -> None:
        self._types = manifest.types
        self._thresholds = np.array(manifest.classifier.thresholds, np.float32)
        self._counts = np.zeros(len(manifest.types), np.int64)

    def add(self, result: FieldResult) -> None:
        """Count the regions of a field that have a type whose threshold they do not reach."""
        if result.regions is not None:
            below = result.regions.probabilities < self._thresholds
            self._counts += (result.regions.has & below).sum(axis=0)

    def notes(self, types: Iterable[str]) -> list[str]:
        """Return a line on each of these types that regions keep."""
        notes = []
        for name in types:
            at = self._types.index(name)
            if self._counts[at]:
                notes.append(
                    f"{self._counts[at]} regions keep {name} below its threshold of "
                    f"{self._thresholds[at]:g}, because no other type is likelier; "
                    "--no-at-least-one lets them go"
                )
        return notes
