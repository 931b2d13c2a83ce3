"""Find connected components, so that the truth of a rendered field comes from its mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32, Int32

__all__ = ["label_regions"]


def label_regions(mask: npt.NDArray[np.bool_]) -> tuple[Int32, Float32]:
    """Label the 8-connected components of a mask.

    mask: bool [H, W].

    Returns labels int32 [H, W], 0 outside and 1..R in the order in which a row-by-row scan meets
    the components, and their boxes float32 [R, 4], x0 y0 x1 y1 with the far edges exclusive.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    row, start = np.nonzero(steps == 1)
    end = np.nonzero(steps == -1)[1]
    upper, lower = _touching_runs(row, start, end, stride=width + 2)
    root = _roots(len(row), upper, lower)
    first, component = np.unique(root, return_inverse=True)

    labels = np.zeros((height, width), np.int32)
    labels[mask] = np.repeat(component + 1, end - start)
    boxes = np.empty((len(first), 4), np.float32)
    boxes[:, :2] = np.inf
    boxes[:, 2:] = -np.inf
    np.minimum.at(boxes[:, 0], component, start)
    np.minimum.at(boxes[:, 1], component, row)
    np.maximum.at(boxes[:, 2], component, end)
    np.maximum.at(boxes[:, 3], component, row + 1)
    return labels, boxes


_Indices = npt.NDArray[np.intp]


def _touching_runs(
    row: _Indices, start: _Indices, end: _Indices, *, stride: int
) -> tuple[_Indices, _Indices]:
    """Return pairs of runs [start, end) that touch, at sides or corners, in neighbouring rows."""
    below = (row + 1) * stride
    first = np.searchsorted(row * stride + end, below + start, side="left")
    last = np.searchsorted(row * stride + start, below + end, side="right")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(row)), count)
    nth = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, np.repeat(first, count) + nth


def _roots(count: int, left: _Indices, right: _Indices) -> _Indices:
    """Return the smallest index of the set that each of `count` items is in, where pairs left,
    right are joined.
    """
    root = np.arange(count)
    while True:
        a, b = root[left], root[right]
        if np.array_equal(a, b):
            return root
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(root, root[root]):
            root = root[root]
