"""Matching boxes against the obvious way: all pairs, the best first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.errors import ResultsError
from rbc_engine.stats import match
from rbc_engine.stats.match import match_boxes

from ...boxes import area, iou


def slow_match(a, b, least_iou):
    """Exact for whole numbers."""
    pairs = []
    for i, box in enumerate(a):
        for j, other in enumerate(b):
            share = np.float32(iou(box, other))
            if area(box) + area(other) > 0 and share >= least_iou:
                pairs.append((-share, i, j))
    taken, used_a, used_b = [], set(), set()
    for _, i, j in sorted(pairs):
        if i not in used_a and j not in used_b:
            taken.append((i, j))
            used_a.add(i)
            used_b.add(j)
    return sorted(taken)


def some_boxes(rng, count, size, spread):
    corners = rng.integers(0, spread, (count, 2))
    return np.concatenate([corners, corners + rng.integers(0, size, (count, 2))], axis=1).astype(
        np.float32
    )


@given(
    seed=st.integers(0, 10_000),
    counts=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    size=st.integers(1, 30),
    spread=st.sampled_from([1, 10, 200]),
    dense=st.sampled_from([1, 8, 1 << 18]),
)
def test_it_is_greedy_matching_however_the_plane_is_cut(seed, counts, size, spread, dense):
    rng = np.random.default_rng(seed)
    a, b = (some_boxes(rng, count, size, spread) for count in counts)
    b[: len(a) : 2] = a[: len(b) : 2][: len(b[: len(a) : 2])]
    before, match._DENSE_PAIRS = match._DENSE_PAIRS, dense
    try:
        in_a, in_b, iou = match_boxes(a, b, least_iou=0.5)
    finally:
        match._DENSE_PAIRS = before
    assert list(zip(in_a.tolist(), in_b.tolist(), strict=True)) == slow_match(a, b, 0.5)
    assert ((iou >= 0.5) & (iou <= 1)).all()


def test_a_whole_slide_matches_itself_in_another_order():
    rng = np.random.default_rng(0)
    side = 300
    corners = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=2).reshape(-1, 2) * 60
    corners = corners + rng.integers(0, 10, corners.shape)
    a = np.concatenate([corners, corners + 45], axis=1).astype(np.float32)
    order = rng.permutation(len(a))
    in_a, in_b, iou = match_boxes(a, a[order] + np.float32(1), least_iou=0.5)
    np.testing.assert_array_equal(in_a, np.arange(len(a)))
    np.testing.assert_array_equal(order[in_b], in_a)
    np.testing.assert_allclose(iou, 44**2 / (2 * 45**2 - 44**2), rtol=1e-5)


def test_heaps_of_boxes_are_refused():
    heap = np.tile(np.array([[0, 0, 10, 10]], np.float32), (3000, 1))
    with pytest.raises(ResultsError, match="lie on one another"):
        match_boxes(heap, heap, least_iou=0.5)
