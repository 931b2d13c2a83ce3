"""Foreground that no box covers, against the truth of rendered fields."""

from __future__ import annotations

import numpy as np
import pytest

from rbc_engine.lanes.measure import measure_field
from rbc_engine.lanes.stages.doubts.uncovered import uncovered_share
from rbc_engine.sources.synthetic.field import render_field


def share(pixels, boxes):
    return uncovered_share(pixels, measure_field(pixels), np.asarray(boxes, np.float32))


@pytest.fixture(scope="module")
def field():
    return render_field(seed=3, width=800, height=600, cells=60, cell_px=50.0, touching=0.2)


def test_all_cells_boxed_leave_next_to_nothing(field):
    assert share(field.pixels, field.cell_boxes) < 0.03


def test_without_boxes_everything_is_uncovered(field):
    assert share(field.pixels, np.zeros((0, 4))) == 1.0


@pytest.mark.parametrize("every", [2, 4])
def test_missed_cells_are_uncovered_in_proportion_to_their_area(field, every):
    kept = field.cell_boxes[::every]
    areas = (field.cell_boxes[:, 2:] - field.cell_boxes[:, :2]).prod(axis=1)
    missed = 1 - areas[::every].sum() / areas.sum()
    # Boxes cover some of their neighbours.
    assert missed - 0.25 < share(field.pixels, kept) < missed + 0.05


def test_it_depends_on_neither_scale_nor_light(field):
    kept = field.cell_boxes[::2]
    large = field.pixels.repeat(2, axis=0).repeat(2, axis=1)
    assert share(large, 2 * kept) == pytest.approx(share(field.pixels, kept), abs=0.05)
    dim = (field.pixels * 0.6).astype(np.uint8)
    assert share(dim, kept) == pytest.approx(share(field.pixels, kept), abs=0.05)


def test_a_black_surround_is_no_foreground(field):
    y, x = np.mgrid[:600, :800]
    outside = (x - 400) ** 2 + (y - 300) ** 2 > 290**2
    pixels = np.where(outside[..., None], 4, field.pixels).astype(np.uint8)
    assert share(pixels, field.cell_boxes) < 0.15


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.full((480, 640, 3), 220, np.uint8), id="empty"),
        pytest.param(np.zeros((480, 640, 3), np.uint8), id="black"),
        pytest.param(np.full((16, 16, 3), 255, np.uint8), id="tiny"),
    ],
)
def test_a_frame_without_foreground_has_no_share(pixels):
    assert share(pixels, np.zeros((0, 4))) is None


def test_boxes_outside_the_frame_cover_nothing(field):
    outside = [[-100, -100, -10, -10], [900, 700, 1000, 800], [-50, 100, -5, 200]]
    assert share(field.pixels, outside) == 1.0
