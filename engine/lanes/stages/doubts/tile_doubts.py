"""Sum up over the tiles of a whole slide how far they are from the training, and what no box
covers.
"""

from __future__ import annotations

from statistics import fmean, median

from rbc_engine.types.results import FieldFlag, FieldResult

__all__ = ["TileDoubts"]


class TileDoubts:
    """Collect the results of tiles."""

    def __init__(self) -> None:
        self._distances: list[float] = []
        self._uncovered: list[float] = []
        self._flagged = dict.fromkeys(FieldFlag, 0)

    def add(self, result: FieldResult) -> None:
        """Take in one tile."""
        if result.unfamiliar_distance is not None:
            self._distances.append(result.unfamiliar_distance)
        if result.uncovered is not None:
            self._uncovered.append(result.uncovered)
        for flag in self._flagged:
            self._flagged[flag] += flag in result.flags

    @property
    def distance(self) -> float | None:
        """Return the median distance of the tiles that have one; None without any."""
        return median(self._distances) if self._distances else None

    @property
    def uncovered(self) -> float | None:
        """Return the mean of the tiles that have it; None without any."""
        return fmean(self._uncovered) if self._uncovered else None

    @property
    def flags(self) -> FieldFlag:
        """Return the flags of more than half of the tiles on which each was measured."""
        measured = {
            FieldFlag.UNFAMILIAR: len(self._distances),
            FieldFlag.UNCOVERED: len(self._uncovered),
        }
        flags = FieldFlag(0)
        for flag, count in self._flagged.items():
            if 2 * count > measured[flag]:
                flags |= flag
        return flags
