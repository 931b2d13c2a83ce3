"""Measure detections and types on plain arrays. Shares and areas lie in 0..1; one over nothing is
NaN.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score, roc_auc_score

from rbc_engine.types.arrays import Float32

__all__ = [
    "average_precision",
    "box_intersection",
    "box_iou",
    "centres_hit",
    "coco_average_precision",
    "covered_share",
    "exact_match",
    "lowest_threshold",
    "match_regions",
    "precision_recall",
    "share",
    "single_cell_scores",
    "type_aucs",
]

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def share(mask: Mask) -> float:
    """Return the share of a bool array that is True."""
    return float(mask.mean()) if mask.size else float("nan")


def box_intersection(first: Float32, second: Float32) -> Floats:
    """Return the common area, float64 [A, B], of boxes [A, 4] and [B, 4], x0 y0 x1 y1."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common: Floats = np.clip(high - low, 0, None).prod(axis=2)
    return common


def box_iou(first: Float32, second: Float32) -> Floats:
    """Return the IoU, float64 [A, B], of boxes [A, 4] and [B, 4], x0 y0 x1 y1; 0 for empty
    boxes.
    """
    common = box_intersection(first, second)
    areas = [
        (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        for boxes in (first.astype(np.float64), second.astype(np.float64))
    ]
    union = areas[0][:, None] + areas[1][None] - common
    iou: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def covered_share(boxes: Float32, truth: Float32) -> Floats:
    """Return the share of each box that true regions cover together, float64 [D], of boxes [D, 4]
    and truth [R, 4].
    """
    shares = np.zeros(len(boxes))
    regions = truth.astype(np.float64)
    for index, box in enumerate(boxes.astype(np.float64)):
        low, high = np.maximum(regions[:, :2], box[:2]), np.minimum(regions[:, 2:], box[2:])
        meets = (low < high).all(axis=1)
        low, high = low[meets], high[meets]
        # Between neighbouring edges of any region, a point is covered wherever its whole rectangle
        # is.
        x, y = (np.unique(np.concatenate([low[:, axis], high[:, axis]])) for axis in (0, 1))
        in_x = (low[:, 0, None] <= x[:-1]) & (x[1:] <= high[:, 0, None])
        in_y = (low[:, 1, None] <= y[:-1]) & (y[1:] <= high[:, 1, None])
        covered = (in_x[:, :, None] & in_y[:, None, :]).any(axis=0)
        area = (box[2:] - box[:2]).prod()
        if area > 0:
            shares[index] = np.diff(x) @ covered @ np.diff(y) / area
    return shares


def match_regions(
    found: Float32, scores: Float32, truth: Float32, *, iou: float = 0.5
) -> npt.NDArray[np.int64]:
    """Match the detections of one field to its true regions, one to one.

    Surest first, each detection takes the true region of greatest IoU among those still free, if
    that is at least `iou`.

    found: float32 [D, 4]; scores: float32 [D]; truth: float32 [R, 4].

    Returns int64 [D], indices into truth, -1 for a false region.
    """
    overlaps = box_iou(found, truth)
    matched = np.full(len(found), -1, np.int64)
    if not len(truth):
        return matched
    for index in np.argsort(-scores, kind="stable"):
        best = int(overlaps[index].argmax())
        if overlaps[index, best] >= iou:
            matched[index] = best
            overlaps[:, best] = -1
    return matched


def precision_recall(
    correct: Mask, scores: Float32, *, truths: float, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return the precision-recall curve, float64 [P] each, by falling score, with a point for every
    score that occurs.

    As in PASCAL VOC since 2010 and in COCO, the precision at a recall is the best at that recall or
    a higher one.

    correct: bool [D], whether each detection, of all fields together, is matched to a true region.
    scores: float32 [D].
    truths: true regions in all fields, more than 0; in the unit of the weights, if there are any.
    weights: float64 [D], how often each detection counts; None for once.

    Returns recall, precision.
    """
    order = np.argsort(-scores, kind="stable")
    weights = np.ones(len(order)) if weights is None else weights[order]
    seen = np.cumsum(weights)
    hits = np.cumsum(weights * correct[order])
    # Detections of one score come together: no threshold can separate them.
    last = np.flatnonzero(np.diff(scores[order], append=np.float32(-np.inf)))
    seen, hits = seen[last], hits[last]
    # Before the first detection of any weight there are no hits either: the precision there is 0.
    precision = hits / np.maximum(seen, np.finfo(np.float64).tiny)
    return hits / truths, np.maximum.accumulate(precision[::-1])[::-1]


def average_precision(
    correct: Mask, scores: Float32, *, truths: float, weights: Floats | None = None
) -> float:
    """Return the area under the whole precision-recall curve. Arguments as in precision_recall, but
    truths may be 0.
    """
    if truths == 0:
        return float("nan")
    recall, precision = precision_recall(correct, scores, truths=truths, weights=weights)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def coco_average_precision(
    correct: Mask, scores: Float32, *, truths: float, weights: Floats | None = None
) -> float:
    """Return COCO's average precision: mean precision at recalls 0, 0.01 ... 1, zero at those not
    reached.

    Arguments as in average_precision.
    """
    if truths == 0:
        return float("nan")
    recall, precision = precision_recall(correct, scores, truths=truths, weights=weights)
    at = np.searchsorted(recall, np.linspace(0.0, 1.0, 101))
    return float(np.append(precision, 0.0)[at].mean())


def lowest_threshold(
    correct: Mask, scores: Float32, *, max_false_share: float, floor: float
) -> float | None:
    """Return the lowest score, `floor` or a whole hundredth over it, from which on enough
    detections are true.

    correct, scores: as in average_precision.
    max_false_share: of the detections that are kept.

    Returns None if no score that keeps any detection does.
    """
    hundredths = np.arange(np.floor(floor * 100) + 1, 100) / 100
    for threshold in (floor, *hundredths.tolist()):
        kept = scores >= np.float32(threshold)
        if kept.any() and share(~correct[kept]) <= max_false_share:
            return float(threshold)
    return None


def centres_hit(boxes: Float32, centres: Float32) -> Mask:
    """Return bool [N], whether each labelled centre [N, 2], x y, lies in any box [D, 4] of its
    field.
    """
    x, y = centres[:, 0, None], centres[:, 1, None]
    inside = (x >= boxes[:, 0]) & (x <= boxes[:, 2]) & (y >= boxes[:, 1]) & (y <= boxes[:, 3])
    return np.asarray(inside.any(axis=1))


def type_aucs(types: Mask, probabilities: Float32, *, min_examples: int) -> Floats:
    """Return the area under the ROC curve of each type, float64 [T].

    NaN where fewer than `min_examples` regions hold the type, or all of them do.

    types: bool [R, T]; probabilities: float32 [R, T].
    """
    aucs = np.full(types.shape[1], np.nan)
    for index, held in enumerate(types.T):
        if max(min_examples, 1) <= held.sum() < len(held):
            aucs[index] = roc_auc_score(held, probabilities[:, index])
    return aucs


def exact_match(types: Mask, has: Mask) -> float:
    """Return the share of regions with all types right. types, has: bool [R, T]."""
    return share((types == has).all(axis=1))


def single_cell_scores(types: Mask, probabilities: Float32) -> tuple[float, float]:
    """Return accuracy and macro F1 of the likeliest type, over regions of one cell.

    The mean of F1 is over the types that the regions hold.

    types: bool [R, T], one type in each row; probabilities: float32 [R, T].
    """
    if not len(types):
        return float("nan"), float("nan")
    truth, predicted = types.argmax(axis=1), probabilities.argmax(axis=1)
    macro_f1 = f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    return share(truth == predicted), float(macro_f1)
