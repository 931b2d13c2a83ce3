"""The boxes' helpers against counting unit squares: the boxes have whole edges."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from .boxes import area, common_area, iou, ious, overlap

# Whole edges on a small square, so that boxes meet often; some are empty.
box = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(0, 6)] * 2).map(
    lambda drawn: (drawn[0], drawn[1], drawn[0] + drawn[2], drawn[1] + drawn[3])
)


def squares(box):
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@given(box, box)
def test_areas_count_squares(a, b):
    one, other = squares(a), squares(b)
    assert area(a) == len(one)
    assert common_area(a, b) == len(one & other)
    assert overlap(a, b) == bool(one & other)
    expected = len(one & other) / len(one | other) if one | other else 0.0
    assert iou(a, b) == expected
    assert iou(np.float32(a), np.float32(b)) == np.float32(expected)


@given(st.lists(box, max_size=4), st.lists(box, max_size=4))
def test_ious_are_those_of_the_pairs(boxes, others):
    got = ious(boxes, others)
    assert got.shape == (len(boxes), len(others))
    assert got.tolist() == [[iou(a, b) for b in others] for a in boxes]
