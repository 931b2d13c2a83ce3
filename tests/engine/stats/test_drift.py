"""What changes between two ways of computing, counted by hand.

How boxes are paired: test_match.py.
"""

from __future__ import annotations

import numpy as np

from rbc_engine.stats.drift import Drift
from rbc_engine.types.regions import Regions

TYPES = ("a", "b", "c")


def regions(boxes, has=None, abnormal=None, p=None) -> Regions:
    count = len(boxes)
    has = np.zeros((count, 3), bool) if has is None else np.array(has, bool)
    return Regions.by_area(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.ones(count, np.float32),
        probabilities=has.astype(np.float32) if p is None else np.array(p, np.float32),
        has=has,
        abnormal_p=np.zeros(count, np.float32),
        abnormal=np.zeros(count, bool) if abnormal is None else np.array(abnormal, bool),
        flags=np.zeros(count, np.uint8),
    )


def test_every_change_is_counted_once() -> None:
    first = regions(
        [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)],
        has=[[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
        abnormal=[0, 0, 1, 1],
    )
    second = regions(
        [(60, 0, 70, 10), (0, 0, 10, 10.5), (20, 2, 30, 12), (80, 0, 90, 10), (100, 0, 110, 10)],
        has=[[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]],
        abnormal=[0, 0, 0, 0, 0],
    )
    drift = Drift(types=TYPES)
    drift.add(first, second)
    record = drift.record()
    assert record == {
        "fields": 1,
        "regions": 4,
        "lost": 1,
        "gained": 2,
        "moved": 1,
        "relabelled": 1,
        "abnormal_flips": 1,
        "largest_p": 1.0,
        "labels_by_type": {"a": 1, "b": 1, "c": 0},
    }
    shares = drift.shares()
    assert shares["labels"] == 2 / 9
    assert shares["abnormal"] == 1 / 3
    assert shares["lost"] == 1 / 4


def test_nothing_changes_in_the_same_answer() -> None:
    same = regions([(0, 0, 10, 10)], has=[[1, 0, 0]])
    drift = Drift(types=TYPES).add_all([(same, same), (regions([]), regions([]))])
    assert set(drift.shares().values()) == {0.0}
    assert drift.fields == 2
