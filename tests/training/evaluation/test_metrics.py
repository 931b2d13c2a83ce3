"""Measures against definitions written out slowly, scikit-learn, and cases worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.evaluation.findings import Findings, measure
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.types.regions import Regions

from ...boxes import iou, ious

# Whole edges on a small square, so that boxes meet often and equal overlaps occur.
edges = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(1, 6)] * 2)
box_lists = st.lists(edges, max_size=6).map(
    lambda boxes: np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32).reshape(
        -1, 4
    )
)
detections = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=12).map(
    lambda pairs: (
        np.array([correct for correct, _ in pairs], bool),
        np.array([score / 10 for _, score in pairs], np.float32),
    )
)


@given(first=box_lists, second=box_lists)
def test_box_iou_is_that_of_every_pair(first, second):
    np.testing.assert_allclose(metrics.box_iou(first, second), ious(first, second), atol=1e-12)


def test_box_iou_of_empty_boxes_is_zero():
    point = np.array([[3, 3, 3, 3]], np.float32)
    assert metrics.box_iou(point, point) == 0


@given(boxes=box_lists, truth=box_lists)
def test_covered_share_counts_squares(boxes, truth):
    def squares(box):
        return {
            (x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))
        }

    anywhere = set().union(*map(squares, truth))
    expected = [len(squares(box) & anywhere) / len(squares(box)) for box in boxes]
    np.testing.assert_allclose(metrics.covered_share(boxes, truth), expected, atol=1e-12)


@given(found=box_lists, truth=box_lists, data=st.data())
def test_matching_is_greedy_and_one_to_one(found, truth, data):
    scores = np.array(data.draw(st.permutations(range(len(found)))), np.float32)
    free = set(range(len(truth)))
    expected = np.full(len(found), -1)
    for index in sorted(range(len(found)), key=lambda i: -scores[i]):
        best = max(free, key=lambda t: (iou(found[index], truth[t]), -t), default=None)
        if best is not None and iou(found[index], truth[best]) >= 0.5:
            expected[index] = best
            free.remove(best)
    np.testing.assert_array_equal(metrics.match_regions(found, scores, truth), expected)


@given(detections, st.integers(0, 5))
def test_average_precision_is_the_area_under_the_curve(pair, missed):
    correct, scores = pair
    truths = int(correct.sum()) + missed
    if truths == 0:
        assert math.isnan(metrics.average_precision(correct, scores, truths=0))
        return
    points = []
    for threshold in np.unique(scores):
        kept = scores >= threshold
        points.append((correct[kept].sum() / truths, correct[kept].mean()))
    # Every k-th true region found counts with the best precision at which k regions are found.
    expected = sum(
        max((p for r, p in points if r >= k / truths - 1e-9), default=0.0)
        for k in range(1, truths + 1)
    )
    got = metrics.average_precision(correct, scores, truths=truths)
    assert got == pytest.approx(expected / truths)


def test_average_precision_by_hand():
    correct = np.array([True, False, True, True])
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    # Recall 1/4 at precision 1; recall 2/4 and 3/4 at precision 3/4, the best from there on; one
    # region missed.
    assert metrics.average_precision(correct, scores, truths=4) == pytest.approx(
        0.25 + 2 * 0.25 * 0.75
    )


@given(detections, st.integers(1, 5), st.data())
def test_weights_are_repetitions(pair, missed, data):
    correct, scores = pair
    repeats = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores))), int
    )
    truths = int((repeats * correct).sum()) + missed
    for ap in (metrics.average_precision, metrics.coco_average_precision):
        expected = ap(np.repeat(correct, repeats), np.repeat(scores, repeats), truths=truths)
        got = ap(correct, scores, truths=truths, weights=repeats.astype(float))
        assert got == pytest.approx(expected, abs=1e-12)


@given(detections, st.floats(0, 1), st.sampled_from([0.05, 0.1, 0.33]))
def test_lowest_threshold(pair, max_false_share, floor):
    correct, scores = pair
    expected = None
    for threshold in [floor] + [n / 100 for n in range(100) if n / 100 > floor]:
        kept = [bool(c) for c, s in zip(correct, scores, strict=True) if s >= np.float32(threshold)]
        if kept and kept.count(False) / len(kept) <= max_false_share:
            expected = threshold
            break
    got = metrics.lowest_threshold(correct, scores, max_false_share=max_false_share, floor=floor)
    assert got == expected


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_type_auc_is_the_share_of_pairs_in_order(count, seed):
    rng = np.random.default_rng(seed)
    types = rng.random((count, 3)) < (0.5, 0.1, 1.0)
    p = rng.integers(0, 8, (count, 3)).astype(np.float32) / 8
    aucs = metrics.type_aucs(types, p, min_examples=2)
    for index in range(3):
        with_type, without = p[types[:, index], index], p[~types[:, index], index]
        if len(with_type) < 2 or not len(without):
            assert math.isnan(aucs[index])
        else:
            wins = [(a > b) + 0.5 * (a == b) for a in with_type for b in without]
            assert aucs[index] == pytest.approx(np.mean(wins))


def test_scores_of_single_cells_by_hand():
    types = np.eye(4, dtype=bool)[[0, 0, 1, 2]]  # nobody holds type 3
    p = np.eye(4, dtype=np.float32)[[0, 3, 1, 1]]
    accuracy, macro_f1 = metrics.single_cell_scores(types, p)
    assert accuracy == 0.5
    # Type 0: precision 1, recall 1/2; type 1: precision 1/2, recall 1; type 2: never called.
    assert macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert macro_f1 == pytest.approx(
        f1_score([0, 0, 1, 2], [0, 3, 1, 1], labels=[0, 1, 2], average="macro")
    )
    assert all(map(math.isnan, metrics.single_cell_scores(types[:0], p[:0])))


def test_centres_hit_and_exact_match_by_hand():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 40]], np.float32)
    centres = np.array([[5, 5], [15, 5], [25, 39], [25, 41]], np.float32)
    assert metrics.centres_hit(boxes, centres).tolist() == [True, False, True, False]
    assert metrics.centres_hit(boxes[:0], centres).tolist() == [False] * 4
    types = np.array([[1, 0], [1, 1], [0, 1]], bool)
    has = np.array([[1, 0], [1, 0], [0, 1]], bool)
    assert metrics.exact_match(types, has) == pytest.approx(2 / 3)


def test_measures_of_a_field_by_hand():
    """Four true regions: two called right, one wrong, one of unknown types; one false region."""
    truth = np.array(
        [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32
    )
    field = LabelledField(
        path=Path("a.jpg"),
        group="1",
        boxes=truth,
        types=np.array([[1, 0], [0, 1], [1, 0], [0, 0]], bool),
        cells=np.array([1, 1, 2, 0]),
        centres=np.array([[5, 5], [25, 5], [43, 5], [47, 5], [95, 5]], np.float32),
        known=np.array([True, True, True, False]),
        labelled=True,
    )
    probabilities = np.array(
        [[0.9, 0.1], [0.2, 0.8], [0.1, 0.7], [0.6, 0.1], [0.5, 0.6]], np.float32
    )
    found = Regions.by_area(
        boxes=np.concatenate([truth, [[90, 90, 99, 99]]]).astype(np.float32),
        scores=np.array([0.9, 0.8, 0.7, 0.6, 0.1], np.float32),
        probabilities=probabilities,
        has=probabilities >= 0.5,
        abnormal_p=np.array([0.1, 0.9, 0.9, 0.1, 0.9], np.float32),
        abnormal=np.array([False, True, True, False, True]),
        flags=np.zeros(5, np.uint8),
    )
    match = metrics.match_regions(found.boxes, found.scores, field.boxes)
    findings = Findings(fields=[field], found=[found], matches=[match])
    values = measure(findings, score_threshold=0.65, types=("good", "bad"), abnormal=("bad",))
    assert values == {
        "fields": 1,
        "smear_groups": 1,
        "regions": 4,
        "labelled_cells": 5,
        "ap50": 1.0,
        "region_recall_at_score_threshold": 0.75,
        "false_region_share_at_score_threshold": 0.0,
        "cell_centre_hit_recall": 0.8,
        "typed_regions": 3,
        "typed_single_cells": 2,
        "exact_match_typed_regions": 0.6667,
        "accuracy_single_cells": 1.0,
        "macro_f1_single_cells": 1.0,
        "types_with_20_regions": 0,
        "abnormal_accuracy_typed_regions_caller_trained_on_these_smears": 0.6667,
    }
