"""Boxes [x0, y0, x1, y1], the slow and obvious way; of the product's code there is nothing here.

Numbers keep their type: of float32 boxes every step is rounded to float32.
"""

from __future__ import annotations

import numpy as np


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def common_area(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height


def overlap(a, b) -> bool:
    """Boxes that only touch do not overlap."""
    return bool(common_area(a, b) > 0)


def iou(a, b) -> float:
    """The common area as a share of the area of both together; 0 where there is none."""
    common = common_area(a, b)
    union = area(a) + area(b) - common
    return float(common / union) if union > 0 else 0.0


def ious(boxes, others):
    """float64 [boxes, others]."""
    first, second = np.asarray(boxes, float).tolist(), np.asarray(others, float).tolist()
    return np.array([[iou(a, b) for b in second] for a in first]).reshape(len(first), len(second))
