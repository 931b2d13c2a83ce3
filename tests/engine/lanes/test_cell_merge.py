"""The cells of a slide's tiles merged to regions, against the regions of the whole slide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbc_engine.lanes.cell_merge import CellMerge, open_merge
from rbc_engine.lanes.stages.call import called
from rbc_engine.lanes.stages.group import counted, group_cells
from rbc_engine.lanes.tile_merge import TileMerge
from rbc_engine.lanes.tiles import plan_tiles
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag, Regions

CELL_PX = 40  # of the slide, about 27 on the canvas


@pytest.fixture(scope="module")
def manifest():
    manifest = Pack.open(find_pack("chula12")).manifest
    detector = manifest.detector.model_copy(
        update={"unit": "cell", "kinds": ("red", "white_cell", "platelet")}
    )
    return manifest.model_copy(update={"detector": detector})


def truth_of(seed, height, width, count):
    """Cells in chains and heaps and by themselves, no two of them one on the other."""
    rng = np.random.default_rng(seed)
    boxes: list[np.ndarray] = []
    for _ in range(count):
        if boxes and rng.random() < 0.75:  # beside an earlier one
            last = boxes[rng.integers(len(boxes))]
            angle = rng.random() * 2 * np.pi
            centre = (last[:2] + last[2:]) / 2 + 0.9 * CELL_PX * np.array(
                [np.cos(angle), np.sin(angle)]
            )
        else:
            centre = rng.random(2) * (width, height)
        sides = rng.uniform(0.8, 1.2, 2) * CELL_PX
        box = np.concatenate([centre - sides / 2, centre + sides / 2])
        box = np.round(np.clip(box, 0, [width, height, width, height]) * 4) / 4
        apart = all(iou(box, other) < 0.2 for other in boxes)
        if apart and (box[2:] - box[:2] > 10).all():
            boxes.append(box)
    kinds = rng.choice(3, len(boxes), p=(0.85, 0.1, 0.05)).astype(np.uint8)
    scores = rng.permutation(np.linspace(0.3, 1, len(boxes)))
    return np.array(boxes, np.float32).reshape(-1, 4), scores.astype(np.float32), kinds


def iou(a, b):
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def regions_of(boxes, scores, kinds, manifest):
    """As a lane makes them; the probabilities say how many cells a region has, in thousandths."""
    grouped = group_cells(boxes, scores, kinds, touching=manifest.detector.touching)
    cells = grouped.cells.per_region(len(grouped.boxes))
    chances = np.where(grouped.kinds == Kind.RED, cells / 1000, 0).astype(np.float32)
    return called(
        counted(grouped, np.zeros(len(cells), np.bool_)),
        probabilities=np.repeat(chances[:, None], len(manifest.types), 1),
        abnormal_p=chances,
        blurred=False,
        settings=manifest,
    )


def seen_in(tile, boxes):
    """Return what a detector without error sees of cells in a tile, cut at its edges."""
    x0, y0, x1, y1 = tile.box
    clipped = np.clip(boxes, [x0, y0, x0, y0], [x1, y1, x1, y1]) - [x0, y0, x0, y0]
    rows = np.flatnonzero((clipped[:, 2:] - clipped[:, :2] > 3).all(axis=1))
    return rows, clipped[rows].astype(np.float32)


def merged(plan, truth, manifest, order=None):
    boxes, scores, kinds = truth
    merge = CellMerge(plan, manifest)
    tiles = list(plan.tiles())
    for index in order if order is not None else range(len(tiles)):
        rows, seen = seen_in(tiles[index], boxes)
        merge.add(tiles[index], regions_of(seen, scores[rows], kinds[rows], manifest))
    return merge.finish()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(700, 2200), (1500, 1500), (300, 400)]))
def test_regions_of_a_slide_are_those_of_all_its_cells(manifest, seed, hw):
    plan = plan_tiles(hw, pixel_um=None, settings=manifest.detector)
    truth = truth_of(seed, *hw, count=150)
    expected = regions_of(*truth, manifest)
    order = np.random.default_rng(seed).permutation(plan.count)
    found = merged(plan, truth, manifest, order)
    for name in ("boxes", "scores", "kinds", "cells_low", "cells_high"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("boxes", "scores", "kinds", "region"):
        np.testing.assert_array_equal(getattr(found.cells, name), getattr(expected.cells, name))
    edge = 1.5 / plan.canvas_scale
    at_edge = (found.boxes[:, :2] <= edge).any(axis=1) | (
        found.boxes[:, 2:] >= np.array(hw[::-1]) - edge
    ).any(axis=1)
    margin = 4 / plan.canvas_scale
    extents = np.array([plan.extent(tile) for tile in plan.tiles()])
    whole = np.array(
        [
            ((box[:2] > extents[:, :2] + margin) & (box[2:] < extents[:, 2:] - margin))
            .all(axis=1)
            .any()
            for box in found.boxes
        ]
    )
    # What a tile saw whole has what that tile said of it, and is not taken for cut.
    np.testing.assert_array_equal(found.probabilities[whole], expected.probabilities[whole])
    np.testing.assert_array_equal(found.abnormal_p[whole], expected.abnormal_p[whole])
    border = found.flags & RegionFlag.BORDER > 0
    np.testing.assert_array_equal(border[whole], at_edge[whole])
    red = found.kinds == Kind.RED
    assert (found.probabilities[red] > 0).all()
    assert (found.probabilities <= expected.probabilities).all()


def test_a_region_that_no_tile_saw_has_what_any_of_them_saw(manifest):
    plan = plan_tiles((400, 2200), pixel_um=None, settings=manifest.detector)
    chain = np.array([(x, 180, x + 40, 220) for x in range(40, 2120, 38)], np.float32)
    kinds = np.zeros(len(chain), np.uint8)
    scores = np.linspace(0.99, 0.5, len(chain)).astype(np.float32)
    found = merged(plan, (chain, scores, kinds), manifest)
    assert len(found) == 1
    assert len(found.cells) == len(chain)
    assert found.flags[0] & RegionFlag.BORDER
    most = max(len(seen_in(tile, chain)[0]) for tile in plan.tiles())
    assert found.probabilities[0, 0] == np.float32(most / 1000)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_a_detector_that_errs_a_little_loses_and_doubles_no_cell(manifest, seed):
    hw = (700, 2200)
    plan = plan_tiles(hw, pixel_um=None, settings=manifest.detector)
    boxes, scores, kinds = truth_of(seed, *hw, count=150)
    rng = np.random.default_rng(seed)
    merge = open_merge(plan, manifest)
    for tile in plan.tiles():
        rows, seen = seen_in(tile, boxes)
        x0, y0, x1, y1 = tile.box
        seen += rng.uniform(-1, 1, seen.shape).astype(np.float32) / np.float32(plan.canvas_scale)
        seen = np.clip(seen, 0, [x1 - x0, y1 - y0, x1 - x0, y1 - y0]).astype(np.float32)
        merge.add(tile, regions_of(seen, scores[rows], kinds[rows], manifest))
    cells = merge.finish().cells
    nearest = np.array(
        [max(range(len(boxes)), key=lambda j, c=cell: iou(c, boxes[j])) for cell in cells.boxes]
    )
    assert sorted(nearest.tolist()) == list(range(len(boxes)))


def test_a_slide_without_cells_has_none(manifest):
    plan = plan_tiles((480, 1600), pixel_um=None, settings=manifest.detector)
    merge = CellMerge(plan, manifest)
    merge.add(plan.tile(0, 0), Regions.empty(len(manifest.types)))
    assert len(merge.finish()) == 0


def test_the_merge_goes_by_what_the_detector_finds(manifest):
    plan = plan_tiles((480, 1600), pixel_um=None, settings=manifest.detector)
    assert isinstance(open_merge(plan, manifest), CellMerge)
    assert isinstance(open_merge(plan, Pack.open(find_pack("chula12")).manifest), TileMerge)
