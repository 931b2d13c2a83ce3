"""How good detections and types are, on plain arrays. Shares and areas lie in 0..1; one over nothing is NaN."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score, roc_auc_score

from rbc_engine.types import Float32

__all__ = [
    "average_precision",
    "box_iou",
    "centres_hit",
    "exact_match",
    "lowest_threshold",
    "match_regions",
    "share",
    "single_cell_scores",
    "type_aucs",
]

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def share(mask: Mask) -> float:
    """Share of a bool array that is True."""
    return float(mask.mean()) if mask.size else float("nan")


def box_iou(first: Float32, second: Float32) -> Floats:
    """Intersection over union, float64 [A, B], of boxes [A, 4] and [B, 4], x0 y0 x1 y1; 0 for empty boxes."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    iou: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def match_regions(
    found: Float32, scores: Float32, truth: Float32, *, iou: float = 0.5
) -> npt.NDArray[np.int64]:
    """Matches the detections of one field to its true regions, one to one.

    Surest first, each detection takes the true region of greatest IoU among those still free, if that is at
    least `iou`.

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


def average_precision(correct: Mask, scores: Float32, *, truths: int) -> float:
    """Area under the precision-recall curve, with a point for every score that occurs.

    As in PASCAL VOC since 2010, the precision at a recall is the best at that recall or a higher one.

    correct: bool [D], whether each detection, of all fields together, is matched to a true region.
    scores: float32 [D].
    truths: true regions in all fields.
    """
    if truths == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(correct[order])
    # Detections of one score come together: no threshold can part them.
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    precision = hits[last] / (last + 1)
    recall = hits[last] / truths
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def lowest_threshold(
    correct: Mask, scores: Float32, *, max_false_share: float, floor: float
) -> float | None:
    """The lowest score, `floor` or a whole hundredth over it, at or over which enough detections are true.

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
    """bool [N], whether each labelled centre [N, 2], x y, lies in any box [D, 4] of its field."""
    x, y = centres[:, 0, None], centres[:, 1, None]
    inside = (x >= boxes[:, 0]) & (x <= boxes[:, 2]) & (y >= boxes[:, 1]) & (y <= boxes[:, 3])
    return np.asarray(inside.any(axis=1))


def type_aucs(types: Mask, probabilities: Float32, *, min_examples: int) -> Floats:
    """Area under the ROC curve of each type, float64 [T].

    NaN where fewer than `min_examples` regions hold the type, or all of them do.

    types: bool [R, T]; probabilities: float32 [R, T].
    """
    aucs = np.full(types.shape[1], np.nan)
    for index, held in enumerate(types.T):
        if max(min_examples, 1) <= held.sum() < len(held):
            aucs[index] = roc_auc_score(held, probabilities[:, index])
    return aucs


def exact_match(types: Mask, has: Mask) -> float:
    """Share of regions of which every type is told right. types, has: bool [R, T]."""
    return share((types == has).all(axis=1))


def single_cell_scores(types: Mask, probabilities: Float32) -> tuple[float, float]:
    """Accuracy and macro F1 of the likeliest type, over regions of one cell.

    The mean of F1 is over the types that the regions hold.

    types: bool [R, T], one type in each row; probabilities: float32 [R, T].
    """
    if not len(types):
        return float("nan"), float("nan")
    truth, told = types.argmax(axis=1), probabilities.argmax(axis=1)
    macro_f1 = f1_score(truth, told, labels=np.unique(truth), average="macro", zero_division=0)
    return share(truth == told), float(macro_f1)
