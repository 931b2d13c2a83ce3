"""Rendered smears: the truth against scipy, the layout, and that each type looks like itself."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from rbc_engine.errors import UsageError
from rbc_engine.sources.synthetic.drawn_cells import TYPES
from rbc_engine.sources.synthetic.field import SyntheticField, check_mix, render_field
from rbc_engine.sources.synthetic.truth import label_regions

from ....boxes import overlap

EIGHT = np.ones((3, 3), int)


def scipy_boxes(labels):
    slices = ndimage.find_objects(labels)
    return np.array([[x.start, y.start, x.stop, y.stop] for y, x in slices], np.float32).reshape(
        -1, 4
    )


@cache
def only(kind: str, **options) -> SyntheticField:
    """A field of one type, no two cells touching."""
    settings = {"seed": 5, "width": 640, "height": 480, "cells": 24, "look_seed": 3} | options
    return render_field(mix={kind: 1.0}, touching=0.0, **settings)


def whole_cells(field: SyntheticField) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mask and pixels of each region that the edge of the field does not cut."""
    height, width = field.mask.shape
    found = []
    for x0, y0, x1, y1 in field.boxes.astype(int):
        if x0 > 0 and y0 > 0 and x1 < width and y1 < height:
            found.append((field.mask[y0:y1, x0:x1] > 0, field.pixels[y0:y1, x0:x1].astype(float)))
    assert len(found) >= 10
    return found


def elongation(mask) -> float:
    """Long over short axis of the ellipse of the same second moments."""
    small, large = np.linalg.eigvalsh(np.cov(np.stack(np.nonzero(mask))))
    return float(np.sqrt(large / small))


def spicules(mask) -> float:
    """Share of the mask that an opening with a disc of a sixth of its size removes."""
    size = np.sqrt(mask.sum())
    y, x = np.ogrid[-9:10, -9:10]
    disc = x * x + y * y <= (size / 6) ** 2
    padded = np.pad(mask, 10)
    return 1.0 - ndimage.binary_opening(padded, disc).sum() / mask.sum()


def median_of(kind: str, measure, **options) -> float:
    return float(np.median([measure(*cell) for cell in whole_cells(only(kind, **options))]))


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_label_regions_equals_scipy(mask):
    labels, boxes = label_regions(mask)
    expected, count = ndimage.label(mask, EIGHT)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(boxes, scipy_boxes(expected))
    assert labels.dtype == np.int32
    assert len(boxes) == count


def test_label_regions_follows_a_spiral():
    mask = np.array(
        [
            [int(c) for c in row]
            for row in ("1111111", "0000001", "1111101", "1000101", "1011101", "1000001", "1111111")
        ],
        bool,
    )
    labels, boxes = label_regions(mask)
    np.testing.assert_array_equal(labels, mask)
    np.testing.assert_array_equal(boxes, [[0, 0, 7, 7]])


@pytest.mark.parametrize(("seed", "touching"), [(0, 0.0), (1, 0.4), (2, 1.0)])
def test_truth_agrees_with_the_mask(seed, touching):
    field = render_field(
        seed=seed, width=800, height=600, cells=70, cell_px=40.0, touching=touching
    )
    assert field.pixels.shape == (600, 800, 3)
    assert field.pixels.dtype == field.mask.dtype == np.uint8
    assert set(np.unique(field.mask)) == {0, 255}
    labels, count = ndimage.label(field.mask, EIGHT)
    np.testing.assert_array_equal(field.boxes, scipy_boxes(labels))
    assert field.types.shape == (count, len(TYPES))
    assert field.cell_boxes.shape == (70, 4)
    assert (field.cell_boxes[:, :2] >= 0).all()
    assert (field.cell_boxes[:, 2:] <= (800, 600)).all()
    # Every cell lies in the box of a region that has its type, and no region has a type without a
    # cell.
    inside = (field.cell_boxes[:, None, :2] >= field.boxes[:, :2]).all(axis=2) & (
        field.cell_boxes[:, None, 2:] <= field.boxes[:, 2:]
    ).all(axis=2)
    for cell, kind in enumerate(field.cell_types):
        assert field.types[inside[cell], kind].any()
    for region in np.flatnonzero(field.cell_counts == 1):
        assert field.types[region].sum() == 1
    for region, has in enumerate(field.types):
        boxes = zip(field.cell_types.tolist(), field.cell_boxes, strict=True)
        nearby = [kind for kind, box in boxes if overlap(box, field.boxes[region])]
        assert set(np.flatnonzero(has)) <= set(nearby)
        assert 1 <= field.cell_counts[region] <= len(nearby)


def test_the_mask_is_what_absorbs():
    field = only("oval_disc")
    green = field.pixels[..., 1].astype(float)
    away = ~ndimage.binary_dilation(field.mask > 0, iterations=6)
    core = ndimage.binary_erosion(field.mask > 0, iterations=4)
    assert np.percentile(green[core], 90) < np.percentile(green[away], 1)


def test_overlaps_are_darker_than_single_cells():
    field = render_field(
        seed=4, width=640, height=480, cells=40, touching=1.0, mix={"oval_disc": 1.0}, look_seed=3
    )
    single = only("oval_disc")
    dark = np.percentile(single.pixels[..., 1][single.mask > 0], 1) - 8
    assert (field.pixels[..., 1][field.mask > 0] < dark).mean() > 10 * (
        single.pixels[..., 1][single.mask > 0] < dark
    ).mean()


@pytest.mark.parametrize("touching", [0.0, 0.5, 1.0])
def test_touching_is_the_share_of_cells_in_groups(touching):
    field = render_field(
        seed=3,
        width=900,
        height=700,
        cells=40,
        cell_px=36.0,
        touching=touching,
        mix={"oval_disc": 1.0},
    )
    in_groups = field.cell_counts[field.cell_counts > 1]
    assert in_groups.sum() == round(touching * 40)
    assert field.cell_counts.sum() == 40
    assert in_groups.size == 0 or in_groups.max() <= 4


def test_an_empty_field_is_light_only():
    field = render_field(seed=1, width=200, height=150, cells=0)
    assert not field.mask.any()
    assert field.boxes.shape == (0, 4)
    assert field.types.shape == (0, len(TYPES))
    assert field.cell_boxes.shape == (0, 4)
    assert field.pixels.min() > 90
    smooth = ndimage.uniform_filter(field.pixels.astype(float), (15, 15, 0))
    assert np.ptp(smooth[..., 1]) / smooth[..., 1].mean() < 0.25


def test_six_hundred_cells_fit():
    field = render_field(seed=0, width=1280, height=960, cells=600, cell_px=24.0)
    assert len(field.cell_boxes) == len(field.cell_types) == 600


def test_too_many_cells_are_refused():
    with pytest.raises(UsageError, match="cells = 200 do not fit into 320x240 px"):
        render_field(seed=0, width=320, height=240, cells=200, cell_px=40.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 31}, "width must be an integer of at least 32"),
        ({"height": 480.0}, "height must be an integer"),
        ({"cells": -1}, "cells must be"),
        ({"seed": -1}, "seed must be"),
        ({"look_seed": True}, "look_seed must be"),
        ({"cell_px": float("nan")}, "cell_px must be at least 12"),
        ({"touching": 1.1}, "touching must be a share"),
        ({"mix": {"spherocyte": 1.0}}, "spherocyte"),
        ({"mix": {"granular": -1.0}}, "finite weights"),
        ({"mix": {}}, "at least one above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        render_field(**({"seed": 0, "width": 640, "height": 480} | options))


@given(st.lists(st.floats(0.0, 1e6), min_size=6, max_size=6).filter(lambda w: sum(w) > 1e-3))
def test_mix_weights_become_shares(weights):
    shares = check_mix(dict(zip(reversed(TYPES), weights, strict=True)))
    np.testing.assert_allclose(shares * sum(weights), weights[::-1], rtol=1e-9, atol=1e-12)


def test_the_mix_is_followed():
    field = render_field(
        seed=0, width=1280, height=960, cells=300, cell_px=30.0, mix={"granular": 3, "oval_disc": 1}
    )
    counts = np.bincount(field.cell_types, minlength=len(TYPES))
    assert counts[TYPES.index("granular")] + counts[TYPES.index("oval_disc")] == 300
    # Five standard deviations of a binomial count.
    assert abs(counts[TYPES.index("granular")] - 225) < 5 * np.sqrt(300 * 0.75 * 0.25)


def test_the_same_seed_gives_the_same_field_in_another_process():
    program = (
        "import hashlib; from rbc_engine.sources.synthetic.field import render_field\n"
        "field = render_field(seed=11, width=320, height=240, cells=15)\n"
        "print(hashlib.sha256(field.pixels.tobytes() + field.mask.tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    field = render_field(seed=11, width=320, height=240, cells=15)
    digest = hashlib.sha256(field.pixels.tobytes() + field.mask.tobytes()).hexdigest()
    assert other.stdout.strip() == digest


def test_seeds_change_the_layout_and_look_seeds_the_colours_only():
    first = render_field(seed=1, look_seed=1, width=320, height=240, cells=12)
    moved = render_field(seed=2, look_seed=1, width=320, height=240, cells=12)
    assert not np.array_equal(first.mask, moved.mask)

    def light(field):
        return np.median(field.pixels[field.mask == 0], axis=0)

    restained = render_field(seed=1, look_seed=9, width=320, height=240, cells=12)
    assert np.abs(light(first) - light(moved)).max() <= 3
    assert np.abs(light(first) - light(restained)).max() > 5


def test_scale_follows_the_field():
    areas = {
        side: np.median(
            [mask.sum() for mask, _ in whole_cells(only("oval_disc", width=side, height=side))]
        )
        for side in (480, 960)
    }
    assert areas[960] / areas[480] == pytest.approx(4.0, rel=0.15)
    diameter_px = 2 * np.sqrt(areas[480] / np.pi)
    assert diameter_px == pytest.approx(40.0, rel=0.1)
    assert only("oval_disc", width=480, height=480).pixel_um == pytest.approx(0.19)


def test_sickles_are_long():
    assert median_of("elongated_sickle", lambda mask, _: elongation(mask)) > 2.5
    for kind in set(TYPES) - {"elongated_sickle"}:
        assert median_of(kind, lambda mask, _: elongation(mask)) < 1.35


def test_echinocytes_have_spicules():
    rough = median_of("echinocyte", lambda mask, _: spicules(mask))
    for kind in ("oval_disc", "reticulocyte", "granular", "stomatocyte"):
        assert rough > 3 * median_of(kind, lambda mask, _: spicules(mask))


def test_stomatocytes_have_a_narrow_mouth():
    def mouth(mask, pixels):
        """Elongation of the brightest tenth well inside the cell."""
        inside = ndimage.binary_erosion(mask, iterations=6)
        green = ndimage.gaussian_filter(pixels[..., 1], 1.0)
        return elongation(inside & (green > np.percentile(green[inside], 90)))

    assert median_of("stomatocyte", mouth) > 2.0 > median_of("oval_disc", mouth)


def test_granules_and_networks_are_basophilic():
    def dark_red(mask, pixels):
        """How far the darkest hundredth in the red channel, where the dye absorbs, is below the
        median.
        """
        red = pixels[..., 0][ndimage.binary_erosion(mask, iterations=4)]
        return (np.median(red) - np.percentile(red, 1)) / np.median(red)

    for kind in ("granular", "reticulocyte"):
        assert median_of(kind, dark_red) > 3 * median_of("oval_disc", dark_red)


def test_reticulocytes_are_large_and_bluish_and_granular_cells_are_not():
    def blue_over_red(mask, pixels):
        core = ndimage.binary_erosion(mask, iterations=4)
        return np.median(pixels[..., 2][core]) / np.median(pixels[..., 0][core])

    def area(mask, _):
        return mask.sum()

    for kind in ("oval_disc", "granular"):
        assert median_of("reticulocyte", blue_over_red) > 1.03 * median_of(kind, blue_over_red)
        assert median_of("reticulocyte", area) > 1.15 * median_of(kind, area)
