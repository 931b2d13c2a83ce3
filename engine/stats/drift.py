"""Count what changes between two ways of computing the same fields: devices, precisions,
decoders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rbc_engine.stats.match import match_boxes
from rbc_engine.types.results import Regions

__all__ = ["Drift"]

_SAME_IOU = 0.5
_MOVED_PX = 1.0


@dataclass(kw_only=True)
class Drift:
    """Count changes over any number of fields.

    regions: in the first. lost: only in the first. gained: only in the second. moved: in both, with
    an edge that differs by more than a pixel. relabelled: in both, with another set of types.
    abnormal_flips: in both, with another call. by_type: labels that only one of the two gives, by
    type. largest_p: the largest difference of a probability.
    """

    types: Sequence[str]
    fields: int = 0
    regions: int = 0
    lost: int = 0
    gained: int = 0
    moved: int = 0
    relabelled: int = 0
    abnormal_flips: int = 0
    largest_p: float = 0.0
    by_type: Counter[str] = field(default_factory=Counter)

    def add(self, first: Regions, second: Regions) -> None:
        """Add one field, computed in two ways."""
        i, j, _ = match_boxes(first.boxes, second.boxes, least_iou=_SAME_IOU)
        self.fields += 1
        self.regions += len(first)
        self.lost += len(first) - len(i)
        self.gained += len(second) - len(j)
        edges = np.abs(first.boxes[i] - second.boxes[j])
        self.moved += int((edges > _MOVED_PX).any(axis=1).sum())
        flips = first.has[i] != second.has[j]
        self.relabelled += int(flips.any(axis=1).sum())
        self.by_type.update(
            {name: int(count) for name, count in zip(self.types, flips.sum(axis=0), strict=True)}
        )
        self.abnormal_flips += int((first.abnormal[i] != second.abnormal[j]).sum())
        p = np.abs(first.probabilities[i] - second.probabilities[j])
        self.largest_p = max(self.largest_p, float(p.max(initial=0.0)))

    def add_all(self, pairs: Iterable[tuple[Regions, Regions]]) -> Drift:
        for first, second in pairs:
            self.add(first, second)
        return self

    @property
    def matched(self) -> int:
        return self.regions - self.lost

    def shares(self) -> dict[str, float]:
        """Return changes as shares: of the first's regions lost, gained and moved; of the common
        regions relabelled and with another call; and of the labels of the common regions flipped.
        """
        regions, matched = max(self.regions, 1), max(self.matched, 1)
        return {
            "lost": self.lost / regions,
            "gained": self.gained / regions,
            "moved": self.moved / regions,
            "relabelled": self.relabelled / matched,
            "labels": self.by_type.total() / (matched * max(len(self.types), 1)),
            "abnormal": self.abnormal_flips / matched,
        }

    def record(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        return {
            "fields": self.fields,
            "regions": self.regions,
            "lost": self.lost,
            "gained": self.gained,
            "moved": self.moved,
            "relabelled": self.relabelled,
            "abnormal_flips": self.abnormal_flips,
            "largest_p": round(self.largest_p, 4),
            "labels_by_type": {name: self.by_type[name] for name in self.types},
        }

    def line(self) -> str:
        """Return the certificate in one line."""
        return (
            f"{self.fields} fields, {self.regions} regions: {self.lost} lost, {self.gained} "
            f"gained, {self.moved} moved by more than a pixel, {self.relabelled} relabelled, "
            f"{self.abnormal_flips} with another call"
        )
