"""Boxes in numpy, the slow and obvious way: float32, one rounding an operation, as torchvision on a CPU."""

import math

import numpy as np

from ..boxes import iou

F = np.float32


def decode(anchors, deltas):
    """Boxes [n, 4] moved by deltas [n, 4]; exp is rounded once."""
    widths = anchors[:, 2] - anchors[:, 0]
    heights = anchors[:, 3] - anchors[:, 1]
    x = deltas[:, 0] * widths + (anchors[:, 0] + F(0.5) * widths)
    y = deltas[:, 1] * heights + (anchors[:, 1] + F(0.5) * heights)
    growth = np.exp(np.minimum(deltas[:, 2:], F(math.log(1000 / 16))).astype(np.float64)).astype(F)
    half_w = F(0.5) * (growth[:, 0] * widths)
    half_h = F(0.5) * (growth[:, 1] * heights)
    return np.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=1)


def clip(boxes, hw):
    height, width = hw
    return np.clip(boxes, F(0), np.array([width, height, width, height], F))


def has_sides(boxes, least_px):
    """False where a coordinate is NaN."""
    return ((boxes[:, 2:] - boxes[:, :2]) >= F(least_px)).all(axis=1)


def nms(boxes, most_iou):
    """Positions kept of boxes that are sorted best first."""
    kept = []
    for i, box in enumerate(boxes):
        if all(not iou(boxes[k], box) > most_iou for k in kept):
            kept.append(i)
    return kept


def best_first(scores):
    """Positions by falling score, equal scores by position."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def background(frame):
    """uint8 [3]: of 16 x 16 samples, each in the middle of its cell of the frame, the level that nine tenths of each
    channel are not above."""
    y, x = (((np.arange(16) + 0.5) * side / 16).astype(int) for side in frame.shape[:2])
    samples = frame[np.ix_(y, x)].reshape(-1, 3)
    return np.sort(samples, axis=0)[256 * 9 // 10 - 1]


def exposure_gain(frame, level):
    """What brings the mean of the background to a level; None leaves it."""
    if level is None:
        return 1.0
    return float(np.clip(3 * level / max(background(frame).astype(int).sum(), 1), 0.5, 3))
