"""Tiles of a slide and the regions merged over them, against a detector without error."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.tile_merge import TileMerge
from rbc_engine.lanes.tiles import OVERLAP_CANVAS_PX, plan_tiles
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.types.regions import RegionFlag, Regions

from ...boxes import area, common_area, iou

NMS_IOU = 0.5
TYPES = 3


@pytest.fixture(scope="module")
def detector():
    return Pack.open(find_pack("chula12")).manifest.detector


def regions_of(boxes, truth_rows, *, scores):
    count = len(boxes)
    return Regions.by_area(
        boxes=np.asarray(boxes, np.float32).reshape(count, 4),
        scores=np.asarray(scores, np.float32),
        # Which region of the truth this is, so that a mix-up shows.
        probabilities=np.repeat(np.asarray(truth_rows, np.float32)[:, None], TYPES, 1),
        has=np.zeros((count, TYPES), np.bool_),
        abnormal_p=np.zeros(count, np.float32),
        abnormal=np.zeros(count, np.bool_),
        flags=np.zeros(count, np.uint8),
    )


def perfect(truth, tile):
    """Return what a detector without error finds in a tile: regions in it, cut at its edges."""
    x0, y0, x1, y1 = tile.box
    clipped = np.stack(
        [
            np.clip(truth[:, 0], x0, x1) - x0,
            np.clip(truth[:, 1], y0, y1) - y0,
            np.clip(truth[:, 2], x0, x1) - x0,
            np.clip(truth[:, 3], y0, y1) - y0,
        ],
        axis=1,
    )
    seen = np.flatnonzero((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]))
    return seen, clipped[seen]


def separate(boxes, most_share):
    """Those boxes that overlap with none before them by more than this share of the smaller one."""
    kept: list[np.ndarray] = []
    for box in boxes:
        if all(common_area(box, b) <= most_share * min(area(box), area(b)) for b in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 4)


def random_truth(rng, height, width, *, largest, count, most_share):
    sides = rng.integers(4 * 6, 4 * largest, (count, 2)) / 4
    corners = rng.integers(0, (4 * width, 4 * height), (count, 2)) / 4 - sides / 2
    boxes = np.concatenate([corners, corners + sides], axis=1)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= 6).all(axis=1)]
    return separate(boxes, most_share)


def merged(plan, truth, *, order=None):
    merge = TileMerge(plan, nms_iou=NMS_IOU, types=TYPES)
    tiles = list(plan.tiles())
    for index in order if order is not None else range(len(tiles)):
        rows, boxes = perfect(truth, tiles[index])
        scores = 0.5 + 0.5 / (2 + rows)
        merge.add(tiles[index], regions_of(boxes, rows, scores=scores))
    return merge.finish()


def as_rows(boxes):
    return sorted(map(tuple, np.asarray(boxes, float).tolist()))


plans = st.fixed_dictionaries(
    {
        "tile": st.integers(2, 8),
        "overlap": st.integers(1, 2),
        "height": st.integers(150, 2600),
        "width": st.integers(150, 2600),
        "um": st.sampled_from([None, 0.1, 0.192, 0.25, 0.2631, 0.5]),
        "seed": st.integers(0, 2**32),
    }
)


def make_plan(drawn, detector):
    overlap = min(drawn["overlap"], drawn["tile"] // 2)
    return plan_tiles(
        (drawn["height"], drawn["width"]),
        pixel_um=drawn["um"],
        settings=detector,
        tile_canvas_px=128 * drawn["tile"],
        overlap_canvas_px=128 * overlap,
    )


@settings(max_examples=50)
@given(drawn=plans)
def test_regions_no_larger_than_the_overlap_come_out_once_and_whole(detector, drawn):
    plan = make_plan(drawn, detector)
    rng = np.random.default_rng(drawn["seed"])
    largest = int(plan.columns.overlap_px - 12 / plan.canvas_scale)
    truth = random_truth(
        rng, drawn["height"], drawn["width"], largest=largest, count=120, most_share=0.6
    )
    truth = truth[[all(iou(a, b) <= NMS_IOU for b in truth[:i]) for i, a in enumerate(truth)]]
    order = rng.permutation(plan.count)
    found = merged(plan, truth, order=order)
    assert as_rows(found.boxes) == as_rows(truth)
    rows = found.probabilities[:, 0].astype(int)
    np.testing.assert_array_equal(found.boxes, truth[rows])
    assert (np.diff(found.scores) <= 0).all()
    assert not (found.flags & RegionFlag.BORDER).any()


@settings(max_examples=50)
@given(drawn=plans)
def test_regions_larger_than_any_tile_are_joined(detector, drawn):
    plan = make_plan(drawn, detector)
    rng = np.random.default_rng(drawn["seed"])
    largest = max(drawn["height"], drawn["width"])
    truth = random_truth(
        rng, drawn["height"], drawn["width"], largest=largest, count=40, most_share=0.0
    )
    found = merged(plan, truth)
    assert as_rows(found.boxes) == as_rows(truth)
    rows = found.probabilities[:, 0].astype(int)
    np.testing.assert_array_equal(found.boxes, truth[rows])
    tiles = [np.array(plan.extent(tile)) for tile in plan.tiles()]
    margin = 4 / plan.canvas_scale
    for box, flags in zip(found.boxes, found.flags, strict=True):
        whole = any(
            (box[:2] > tile[:2] + margin).all() and (box[2:] < tile[2:] - margin).all()
            for tile in tiles
        )
        assert bool(flags & RegionFlag.BORDER) == (not whole)


@settings(max_examples=50)
@given(drawn=plans)
def test_a_detector_that_errs_a_little_doubles_and_loses_nothing(detector, drawn):
    plan = make_plan(drawn, detector)
    rng = np.random.default_rng(drawn["seed"])
    size = 26 / plan.canvas_scale  # a cell
    steps = np.stack(
        np.meshgrid(
            np.arange(0, drawn["width"] - size, 1.05 * size),
            np.arange(0, drawn["height"] - size, 1.05 * size),
        ),
        axis=-1,
    ).reshape(-1, 2)
    truth = np.concatenate([steps, steps + size], axis=1)
    merge = TileMerge(plan, nms_iou=NMS_IOU, types=TYPES)
    for tile in plan.tiles():
        rows, boxes = perfect(truth, tile)
        boxes = boxes + rng.uniform(-1.5, 1.5, boxes.shape) / plan.canvas_scale
        x0, y0, x1, y1 = tile.box
        boxes = np.clip(boxes, 0, [x1 - x0, y1 - y0, x1 - x0, y1 - y0])
        # A sliver at the edge of a tile looks like a cell, or like nothing.
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / size**2
        seen = (area > 0.15) & (rng.random(len(boxes)) < 4 * area)
        merge.add(tile, regions_of(boxes[seen], rows[seen], scores=rng.random(seen.sum())))
    rows = merge.finish().probabilities[:, 0].astype(int)
    assert sorted(rows.tolist()) == list(range(len(truth)))


def test_one_tile_sees_two_cells_where_the_other_sees_one_clump(detector):
    plan = plan_tiles((480, 1600), pixel_um=None, settings=detector)
    border = plan.columns.core(0)[1]
    clump = np.array([border - 45, 100, border + 35, 140])  # its centre is left of the border
    cells = np.array([[border - 45, 100, border - 5, 140], [border - 5, 100, border + 35, 140]])
    left, right = plan.tile(0, 0), plan.tile(0, 1)
    for first, second in ((clump[None], cells), (cells, clump[None])):
        merge = TileMerge(plan, nms_iou=NMS_IOU, types=TYPES)
        for tile, boxes in ((left, first), (right, second)):
            offset = [tile.box[0], 0, tile.box[0], 0]
            merge.add(tile, regions_of(boxes - offset, [0] * len(boxes), scores=[0.9] * len(boxes)))
        assert as_rows(merge.finish().boxes) in (as_rows(clump[None]), as_rows(cells))


def test_a_slide_without_regions_has_none(detector):
    plan = plan_tiles((480, 1600), pixel_um=None, settings=detector)
    merge = TileMerge(plan, nms_iou=NMS_IOU, types=TYPES)
    merge.add(plan.tile(0, 0), regions_of(np.zeros((0, 4)), np.zeros(0), scores=[]))
    found = merge.finish()
    assert len(found) == 0
    assert found.probabilities.shape == (0, TYPES)


@settings(max_examples=50)
@given(drawn=plans)
@example(drawn={"tile": 5, "overlap": 1, "height": 40_000, "width": 30_000, "um": 0.25, "seed": 0})
def test_a_plan_covers_the_slide_and_samples_it_as_one_frame(detector, drawn):
    plan = make_plan(drawn, detector)
    hw = (drawn["height"], drawn["width"])
    for axis, length in ((plan.rows, hw[0]), (plan.columns, hw[1])):
        extents = [axis.extent(index) for index in range(axis.count)]
        cores = [axis.core(index) for index in range(axis.count)]
        assert extents[0][0] == cores[0][0] == 0
        assert extents[-1][1] == cores[-1][1] == length
        for (_, end), (begin, _) in pairwise(extents):
            assert end - begin == axis.overlap_px
        for (_, end), (begin, _) in pairwise(cores):
            assert end == begin
        for extent, core in zip(extents, cores, strict=True):
            assert extent[0] <= core[0] < core[1] <= extent[1]
    wanted = fit_canvas((960, 1280), pixel_um=drawn["um"], settings=detector).scale
    if drawn["um"] is not None:
        assert plan.canvas_scale == pytest.approx(wanted, rel=0.01)
    tiles = list(plan.tiles())
    assert len(tiles) == plan.rows.count * plan.columns.count > 0
    for tile in tiles:
        x0, y0, x1, y1 = tile.box
        assert x0 * plan.canvas_scale == pytest.approx(round(x0 * plan.canvas_scale), abs=1e-6)
        assert round(x0 * plan.canvas_scale) % 32 == round(y0 * plan.canvas_scale) % 32 == 0
        assert tile.fit.canvas_hw == plan.canvas_hw
        assert tile.fit.resized_hw[0] == int((y1 - y0) * plan.canvas_scale + 1e-6)
        assert tile.fit.resized_hw[1] == int((x1 - x0) * plan.canvas_scale + 1e-6)


def test_what_cannot_be_planned_is_refused(detector):
    plan_tiles((500, 500), pixel_um=0.05, settings=detector)
    for hw, um, words in (
        ((500, 500), 10.0, "--um-per-px"),
        ((500, 500), 0.01, "--um-per-px"),
        ((40, 5000), None, "at least 32"),
    ):
        with pytest.raises(ImageError, match=words):
            plan_tiles(hw, pixel_um=um, settings=detector)
    for tile, overlap in ((600, 128), (640, 100), (640, 384), (0, 128)):
        with pytest.raises(UsageError):
            plan_tiles(
                (500, 500),
                pixel_um=None,
                settings=detector,
                tile_canvas_px=tile,
                overlap_canvas_px=overlap,
            )


def test_tiles_of_fine_pixels_stay_small(detector):
    for um in (0.037, 0.065, 0.1):
        plan = plan_tiles((50_000, 50_000), pixel_um=um, settings=detector)
        assert plan.columns.side_px <= 3072
        assert plan.columns.overlap_px * plan.canvas_scale == pytest.approx(OVERLAP_CANVAS_PX)
