"""Match the boxes of two sets one to one, the best overlap first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import ResultsError
from rbc_engine.types.arrays import Float32

__all__ = ["match_boxes"]

_DENSE_PAIRS = 1 << 18
"""Most pairs compared at once; larger sets are split in two by position."""

_MOST_PARTNERS = 100
"""Most boxes that may overlap enough with one box, on average: no field of cells comes near it."""

Indices = npt.NDArray[np.int64]


def match_boxes(a: Float32, b: Float32, *, least_iou: float) -> tuple[Indices, Indices, Float32]:
    """Return pairs of boxes with an IoU of at least `least_iou`, each box in one pair at most, the
    highest IoU first.

    a, b: float32 [A, 4] and [B, 4], x0 y0 x1 y1. least_iou: over 0, to 1.

    Returns the indices into a and b, int64 [P] each in order of a, and the IoU float32 [P]. Of
    equal IoUs the pair with the lower index in a, then in b, takes precedence. Raises ResultsError
    if boxes lie on one another in heaps.
    """
    candidates, count = [], 0
    for found in _candidates(a, b, np.arange(len(a)), np.arange(len(b)), least_iou):
        candidates.append(found)
        count += len(found[0])
        if count > _MOST_PARTNERS * (len(a) + len(b)):
            raise ResultsError("more boxes lie on one another than a field of cells can have")
    if not candidates:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0, np.float32)
    in_a, in_b, iou = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
    taken_a, taken_b = np.zeros(len(a), bool), np.zeros(len(b), bool)
    pairs = []
    for pair in np.lexsort((in_b, in_a, -iou)).tolist():
        first, second = in_a[pair], in_b[pair]
        if not (taken_a[first] or taken_b[second]):
            taken_a[first] = taken_b[second] = True
            pairs.append(pair)
    chosen = np.array(sorted(pairs, key=in_a.__getitem__), np.intp)
    return in_a[chosen], in_b[chosen], iou[chosen]


def _candidates(
    a: Float32, b: Float32, rows_a: Indices, rows_b: Indices, least_iou: float
) -> Iterator[tuple[Indices, Indices, Float32]]:
    """Return all pairs with enough overlap. Each box of a is on one side of every cut, with all of
    b near it.
    """
    if not len(rows_a) or not len(rows_b):
        return
    if len(rows_a) * len(rows_b) <= _DENSE_PAIRS or len(rows_a) == 1:
        iou = _iou(a[rows_a], b[rows_b])
        first, second = np.nonzero(iou >= least_iou)
        yield rows_a[first], rows_b[second], iou[first, second]
        return
    boxes = a[rows_a]
    centres = boxes[:, :2] + boxes[:, 2:]
    axis = int(np.ptp(centres, axis=0).argmax())
    order = np.argsort(centres[:, axis], kind="stable")
    for half in np.array_split(order, 2):
        here = boxes[half]
        low, high = here[:, :2].min(axis=0), here[:, 2:].max(axis=0)
        near = ((b[rows_b, :2] <= high) & (b[rows_b, 2:] >= low)).all(axis=1)
        yield from _candidates(a, b, rows_a[half], rows_b[near], least_iou)


def _iou(a: Float32, b: Float32) -> Float32:
    """Return the IoU of each pair, float32 [A, B]; 0 for boxes without area."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.maximum(sides, 0).prod(axis=2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    iou: Float32 = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou
