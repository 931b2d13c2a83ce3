"""Check that a peer finds what the engine finds: only then does its time count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rbc_engine.types.arrays import Float32
from rbc_engine.types.results import Regions

__all__ = ["LEAST_ALIKE", "LEAST_FOUND", "Agreement", "agreement"]

LEAST_FOUND = 0.95
"""Least share of the regions of either that the other must have too, at an IoU of at least 0.5."""
LEAST_ALIKE = 0.9
"""Least share of the common regions in which both must see the same set of types. bf16 and int8
move a probability near its threshold to the other side.
"""
_IOU = 0.5


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Compare the regions of an engine and a peer.

    regions: of the engine. peer_regions: of the peer. matched: pairs of one each, at an IoU of at
    least 0.5.

    same_types, same_verdict: pairs with equal sets of types, and both abnormal or both not.
    """

    regions: int
    peer_regions: int
    matched: int
    same_types: int
    same_verdict: int

    @property
    def found(self) -> float:
        """Return the share of regions that both found, 0..1; 1 if neither has a region."""
        most = max(self.regions, self.peer_regions)
        return self.matched / most if most else 1.0

    @property
    def alike(self) -> float:
        """Return the share of pairs with the same types, 0..1; 1 without a pair."""
        return self.same_types / self.matched if self.matched else 1.0

    def problem(self) -> str | None:
        """Return why the peer is refused; None if it agrees."""
        if self.found < LEAST_FOUND:
            return (
                f"of {self.regions} regions of the engine and {self.peer_regions} of the peer, "
                f"{self.matched} are the same, {self.found:.1%}; at least {LEAST_FOUND:.0%} must be"
            )
        if self.alike < LEAST_ALIKE:
            return (
                f"of {self.matched} regions that both have, {self.same_types} have the same types, "
                f"{self.alike:.1%}; at least {LEAST_ALIKE:.0%} must"
            )
        return None


def agreement(engine: Sequence[Regions], peer: Sequence[Regions]) -> Agreement:
    """Compare the regions of the same fields in the same order."""
    matched = same_types = same_verdict = 0
    for mine, theirs in zip(engine, peer, strict=True):
        for i, j in _pairs(mine.boxes, theirs.boxes):
            matched += 1
            same_types += bool((mine.has[i] == theirs.has[j]).all())
            same_verdict += bool(mine.abnormal[i] == theirs.abnormal[j])
    return Agreement(
        regions=sum(len(regions) for regions in engine),
        peer_regions=sum(len(regions) for regions in peer),
        matched=matched,
        same_types=same_types,
        same_verdict=same_verdict,
    )


def _pairs(a: Float32, b: Float32) -> list[tuple[int, int]]:
    """Return pairs in which each box occurs at most once, the best overlaps first."""
    if not len(a) or not len(b):
        return []
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    iou = shared / (areas[0][:, None] + areas[1][None, :] - shared)
    pairs: list[tuple[int, int]] = []
    while True:
        i, j = (int(index) for index in np.unravel_index(iou.argmax(), iou.shape))
        if iou[i, j] < _IOU:
            return pairs
        pairs.append((i, j))
        iou[i, :] = iou[:, j] = 0
