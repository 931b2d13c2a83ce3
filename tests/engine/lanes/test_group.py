"""Cells to regions, against loops that say what a region is; and what of them is classified."""

from __future__ import annotations

import math
import timeit

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rbc_engine.lanes.stages.crop import over_regions, subjects_of
from rbc_engine.lanes.stages.detect import Detections
from rbc_engine.lanes.stages.group import group, group_cells, near_pairs
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import Regions


@st.composite
def detections(draw, most=40):
    """Make boxes, scores and kinds of cells: some alike, some nested, on fields crowded or not."""
    count = draw(st.integers(0, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    extent = draw(st.sampled_from([60, 200, 1000]))
    # Whole numbers, so that edges and scores coincide now and then.
    corners = rng.integers(0, extent, (count, 2))
    sides = rng.integers(1, draw(st.sampled_from([12, 60])), (count, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    scores = (rng.integers(1, 20, count) / 20).astype(np.float32)
    kinds = rng.choice(4, count, p=(0.7, 0.1, 0.1, 0.1)).astype(np.uint8)
    return boxes, scores, kinds


def touch(a, b, touching):
    """Whether the ellipses in two boxes, scaled, meet on the line between their centres."""
    (ax, ay), (bx, by) = ((box[:2] + box[2:]) / 2 for box in (a, b))
    distance = math.sqrt((bx - ax) ** 2 + (by - ay) ** 2)
    if distance == 0:
        return True
    reach = 0.0
    for box in (a, b):
        across, down = np.maximum((box[2:] - box[:2]) / 2, 1e-3)
        x, y = (bx - ax) / distance, (by - ay) / distance
        reach += 1 / math.sqrt((x / across) ** 2 + (y / down) ** 2)
    return distance <= touching * reach


def within(a, b):
    """Whether more than nine tenths of the smaller box lie in the other."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    areas = [float((box[2:] - box[:2]).prod()) for box in (a, b)]
    return float(sides.prod()) > 0.9 * min(areas)


def union(boxes):
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def connected(items, linked):
    """Lists of items that hang together."""
    groups = []
    for item in items:
        near = [found for found in groups if any(linked(item, other) for other in found)]
        groups = [found for found in groups if not any(found is other for other in near)]
        groups.append([item, *(other for found in near for other in found)])
    return groups


def obvious(boxes, scores, kinds, touching):
    """Regions as sets of rows: kind, box, score, and cells as (box, score)."""
    wide = boxes.astype(np.float64)
    red = [i for i in range(len(boxes)) if kinds[i] == Kind.RED]
    groups = connected(red, lambda i, j: touch(wide[i], wide[j], touching))
    groups += [[i] for i in range(len(boxes)) if kinds[i] != Kind.RED]
    while True:
        boxed = [(found, union(wide[found]), kinds[found[0]]) for found in groups]
        merged = connected(boxed, lambda a, b: a[2] == b[2] and within(a[1], b[1]))
        if len(merged) == len(groups):
            break
        groups = [[row for found, *_ in several for row in found] for several in merged]
    regions = []
    for rows in groups:
        kind, box, score = (
            int(kinds[rows[0]]),
            union(boxes[rows]).tolist(),
            float(scores[rows].max()),
        )
        cells = [(-float(scores[row]), *boxes[row].tolist()) for row in rows]
        if kind != Kind.RED:
            cells = [(-score, *box)]
        regions.append((-score, *box, kind, sorted(cells)))
    return sorted(regions, key=lambda region: region[:6])


def listed(found):
    """What group_cells gave, as `obvious` lists it."""
    return [
        (
            -float(found.scores[row]), *found.boxes[row].tolist(), int(found.kinds[row]),
            [(-float(found.cells.scores[i]), *found.cells.boxes[i].tolist())
             for i in np.flatnonzero(found.cells.region == row)],
        )
        for row in range(len(found.boxes))
    ]  # fmt: skip


@given(detections(), st.sampled_from([0.5, 0.95, 1.0, 1.3]))
@example((np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8)), 1.0)
def test_regions_are_those_of_the_loops(cells, touching):
    found = group_cells(*cells, touching=touching)
    assert listed(found) == obvious(*cells, touching)


@given(detections(), st.randoms(use_true_random=False))
def test_the_order_of_detections_does_not_matter(cells, random):
    order = list(range(len(cells[0])))
    random.shuffle(order)
    one = group_cells(*cells, touching=1.0)
    other = group_cells(*(array[order] for array in cells), touching=1.0)
    assert listed(one) == listed(other)


@given(detections(most=60))
def test_every_cell_is_in_the_region_that_is_said(cells):
    boxes, scores, kinds = cells
    found = group_cells(boxes, scores, kinds, touching=1.0)
    assert len(found.region_of) == len(boxes)
    around = found.boxes[found.region_of]
    assert (boxes[:, :2] >= around[:, :2]).all()
    assert (boxes[:, 2:] <= around[:, 2:]).all()
    assert (kinds == found.kinds[found.region_of]).all()
    red = kinds == Kind.RED
    assert (found.cells.kinds == Kind.RED).sum() == red.sum()
    assert (found.cells.per_region(len(found.boxes)) >= 1).all()
    assert (found.cells.per_region(len(found.boxes))[found.kinds != Kind.RED] == 1).all()


@given(detections(most=60))
def test_near_pairs_are_all_that_share_a_point(cells):
    boxes, *_ = cells
    expected = {
        (i, j)
        for i in range(len(boxes))
        for j in range(i)
        if (np.maximum(boxes[i, :2], boxes[j, :2]) <= np.minimum(boxes[i, 2:], boxes[j, 2:])).all()
    }
    first, second = near_pairs(boxes)
    pairs = [(max(pair), min(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected


def disc(x, y, radius=10):
    return (x - radius, y - radius, x + radius, y + radius)


def regions_of(*cells, kinds=None, touching=1.0):
    boxes = np.array(cells, np.float32)
    kinds = np.zeros(len(cells), np.uint8) if kinds is None else np.array(kinds, np.uint8)
    scores = np.linspace(0.9, 0.6, len(cells)).astype(np.float32)
    return group_cells(boxes, scores, kinds, touching=touching)


def test_discs_that_touch_corner_to_corner_in_their_boxes_do_not_touch():
    assert len(regions_of(disc(20, 20), disc(39, 39)).boxes) == 2  # 27 apart, boxes overlap
    assert len(regions_of(disc(20, 20), disc(34, 34)).boxes) == 1  # 20 apart
    assert len(regions_of(disc(20, 20), disc(39, 39), touching=1.4).boxes) == 1


def test_a_white_cell_joins_nothing():
    found = regions_of(disc(20, 20), disc(40, 20, 12), disc(60, 20), kinds=[0, 1, 0])
    assert found.kinds.tolist() == [Kind.RED, Kind.WHITE_CELL, Kind.RED]
    # Nor do red cells that touch it and each other take it in.
    around = regions_of(disc(20, 20), disc(38, 20), disc(29, 28, 4), kinds=[0, 0, 2])
    assert around.kinds.tolist() == [Kind.RED, Kind.PLATELET]
    assert around.cells.per_region(2).tolist() == [2, 1]


def test_a_ring_takes_in_what_it_surrounds():
    ring = [disc(50 + 30 * math.cos(a), 50 + 30 * math.sin(a)) for a in np.arange(12) * math.pi / 6]
    found = regions_of(*ring, disc(50, 50, 5), disc(50, 50, 4), kinds=[0] * 13 + [2])
    assert found.kinds.tolist() == [Kind.RED, Kind.PLATELET]
    assert found.cells.per_region(2).tolist() == [13, 1]


def found_in(settings, boxes, scores, classes):
    found = Detections(
        boxes=np.array(boxes, np.float32),
        scores=np.array(scores, np.float32),
        classes=np.array(classes, np.uint8),
        saturated=False,
    )
    return group(found, frame_hw=(200, 300), scale=1.0, settings=settings)


def test_counts_of_cells_are_of_the_sure_and_of_all(toy_cell_pack):
    boxes = [disc(50, 50), disc(68, 50), disc(86, 50), disc(150, 100), disc(5, 150), disc(200, 50)]
    scores = [0.9, 0.4, 0.6, 0.3, 0.8, 0.7]
    found = found_in(toy_cell_pack.manifest.detector, boxes, scores, [0, 0, 0, 0, 0, 1])
    assert found.scores.tolist() == np.float32([0.9, 0.8, 0.7, 0.3]).tolist()
    assert found.cells_low.tolist() == [2, 1, 1, 1]
    assert found.cells_high.tolist() == [3, 1, 1, 1]
    assert found.clump.tolist() == [True, False, False, False]
    assert found.border.tolist() == [False, True, False, False]
    assert found.kinds.tolist() == [0, 0, 1, 0]
    np.testing.assert_array_equal(found.boxes[0], [40, 40, 96, 60])


def test_a_detector_of_regions_has_each_detection_as_one(toy_pack):
    boxes = [
        disc(50, 50),
        disc(68, 50),
        disc(130, 100, 25),
        *(disc(20 + 30 * i, 160) for i in range(5)),
    ]
    scores = np.linspace(0.9, 0.5, len(boxes))
    found = found_in(toy_pack.manifest.detector, boxes, scores, [0] * len(boxes))
    np.testing.assert_array_equal(found.boxes, np.float32(boxes))
    assert found.clump.tolist() == [False, False, True, *[False] * 5]
    assert found.cells.region.tolist() == [0, 1, 3, 4, 5, 6, 7]
    count = len(boxes)
    same = Regions.by_area(
        boxes=np.float32(boxes), scores=np.float32(scores), flags=np.zeros(count, np.uint8),
        probabilities=np.zeros((count, 1), np.float32), has=np.zeros((count, 1), np.bool_),
        abnormal_p=np.zeros(count, np.float32), abnormal=np.zeros(count, np.bool_),
    )  # fmt: skip
    np.testing.assert_array_equal(found.cells_low, same.cells_low)
    np.testing.assert_array_equal(found.cells_high, same.cells_high)
    np.testing.assert_array_equal(found.cells.boxes, same.cells.boxes)


@given(detections(), st.integers(1, 6))
def test_red_regions_of_many_cells_are_classified_one_by_one(cells, whole_up_to):
    found = group_cells(*cells, touching=1.0)
    subjects = subjects_of(found, whole_up_to=whole_up_to)
    expected = []
    for row in range(len(found.boxes)):
        inside = np.flatnonzero(found.cells.region == row)
        if found.kinds[row] != Kind.RED:
            continue
        if len(inside) <= whole_up_to:
            expected.append((row, *found.boxes[row], found.scores[row]))
        else:
            expected += [(row, *found.cells.boxes[i], found.cells.scores[i]) for i in inside]
    got = zip(subjects.region, subjects.boxes, subjects.scores, strict=True)
    assert [(row, *box, score) for row, box, score in got] == expected


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 2**32 - 1))
def test_a_region_has_the_largest_of_its_subjects(rows, seed):
    region = np.sort(np.array(rows, np.int64))
    values = np.random.default_rng(seed).random((len(rows), 3), np.float32)
    largest = over_regions(values, region, 7)
    for row in range(7):
        mine = values[region == row]
        np.testing.assert_array_equal(largest[row], mine.max(axis=0) if len(mine) else np.zeros(3))


@pytest.mark.slow
def test_a_crowded_field_takes_milliseconds():
    rng = np.random.default_rng(0)
    corners = rng.random((1000, 2)) * 1200
    boxes = np.concatenate([corners, corners + rng.uniform(24, 36, (1000, 2))], axis=1)
    cells = boxes.astype(np.float32), rng.random(1000, np.float32), np.zeros(1000, np.uint8)

    seconds = min(timeit.repeat(lambda: group_cells(*cells, touching=1.0), number=1, repeat=20))
    assert seconds < 0.05  # a few ms; ten times that on a machine that is busy
