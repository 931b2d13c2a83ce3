"""Masks and components against slow references, and against the truth of rendered fields."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.training.datasets import foreground

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@given(masks)
def test_holes_are_filled_as_scipy_does(mask):
    np.testing.assert_array_equal(foreground.fill_holes(mask), ndimage.binary_fill_holes(mask))


@given(masks)
def test_components_by_flooding(mask):
    labels, boxes, areas = foreground.components(mask)
    todo = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    expected = []
    while todo:
        patch, front = set(), [todo.pop()]
        while front:
            y, x = front.pop()
            patch.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            front += near
        expected.append(patch)
    assert len(boxes) == len(areas) == labels.max(initial=0) == len(expected)
    for patch in expected:
        index = {int(labels[at]) for at in patch}.pop() - 1
        assert {tuple(at) for at in np.argwhere(labels == index + 1).tolist()} == patch
        ys, xs = zip(*patch, strict=True)
        assert boxes[index].tolist() == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        assert areas[index] == len(patch)


@given(st.lists(st.integers(0, 255), min_size=2, max_size=60).filter(lambda v: len(set(v)) > 1))
def test_otsu_parts_values_best(values):
    """No other level has a lower variance within the two classes."""
    levels = np.array(values, np.float32)

    def within(threshold):
        parts = levels[levels <= threshold], levels[levels > threshold]
        return sum(((part - part.mean()) ** 2).sum() for part in parts if len(part))

    best = min(within(threshold) for threshold in sorted(set(values))[:-1])
    # The histogram puts values within 1/256 of the range together.
    width = float(np.ptp(levels)) / 256
    assert within(foreground.otsu_threshold(levels)) <= best + len(values) * 2 * width * np.ptp(
        levels
    )


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_stretching_is_linear_interpolation(rows, step, seed):
    coarse = np.random.default_rng(seed).random((rows, 3), np.float32)
    length = rows * step + 2
    at = np.arange(length) / step
    expected = np.stack([np.interp(at, np.arange(rows), column) for column in coarse.T], 1)
    np.testing.assert_allclose(foreground._stretch(coarse, length, step), expected, atol=1e-6)


@pytest.mark.parametrize("shading", [0.0, 0.35])
def test_mask_covers_the_rendered_cells(shading):
    """Also where one side of the field is a good deal darker than the other, as no single threshold
    could.
    """
    field = render_field(seed=3, width=640, height=480, cells=45, cell_px=38.0, touching=0.2)
    light = 1 - shading * np.linspace(0, 1, 640)[None, :, None]
    mask = foreground.foreground_mask((field.pixels * light).astype(np.uint8))
    truth = field.mask > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9
