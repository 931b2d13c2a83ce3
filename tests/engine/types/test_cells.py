"""How many cells a region holds, and whether a field is out of focus: on pictures and smears of
which that is known.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.stages.crop import crop_patches, crop_windows
from rbc_engine.lanes.stages.focus import blurred_frames, edge_widths
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.cells import count_cells
from rbc_engine.types.frames import Frame


def boxes_of(sizes, scale=1.0):
    corners = np.arange(2 * len(sizes), dtype=np.float32).reshape(-1, 2) * 3
    return np.concatenate([corners, corners + np.float32(sizes) * np.float32(scale)], axis=1)


def count(sizes, *, cut=None, scale=1.0):
    cut = np.zeros(len(sizes), np.bool_) if cut is None else np.array(cut)
    return count_cells(boxes_of(sizes, scale), cut=cut)


SINGLES = [(30, 30), (28, 31), (32, 29), (30, 27), (26, 34)] * 4


@pytest.mark.parametrize(
    ("size", "cells", "clump"),
    [
        ((30, 30), 1, False),
        ((26, 26), 1, False),  # a microcyte
        ((36, 37), 1, False),  # a macrocyte
        ((45, 20), 1, False),  # an elliptocyte
        ((58, 30), 2, True),  # side by side
        ((50, 52), 2, True),  # corner to corner
        ((46, 40), 2, True),  # one over the other
        ((88, 30), 3, True),
        ((55, 56), 3, True),
        ((60, 60), 4, True),
    ],
)
def test_sizes_tell_cells(size, cells, clump):
    found = count([*SINGLES, size])
    assert not found.clump[:-1].any()
    assert (found.low[:-1] == 1).all()
    assert (found.high[:-1] == 1).all()
    assert found.clump[-1] == clump
    assert found.low[-1] <= cells <= found.high[-1]


@given(
    st.lists(st.tuples(st.floats(0.1, 500), st.floats(0.1, 500)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_every_count_is_possible(sizes, random):
    cut = np.array([random.random() < 0.3 for _ in sizes], np.bool_)
    found = count_cells(boxes_of(sizes) if sizes else np.zeros((0, 4), np.float32), cut=cut)
    assert (found.low >= 1).all()
    assert (found.low <= found.high).all()
    assert (found.high[found.clump] >= 2).all()


def test_the_scale_of_the_image_does_not_matter():
    sizes = [*SINGLES, (58, 30), (60, 60), (45, 20)]
    one, two = count(sizes), count(sizes, scale=2.5)
    for name in ("low", "high", "clump"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_what_the_border_cuts_is_no_measure():
    halves = [(15, 30)] * 30
    sizes = [*SINGLES, *halves, (58, 30)]
    found = count(sizes, cut=[False] * len(SINGLES) + [True] * len(halves) + [False])
    assert found.clump.tolist() == [False] * (len(sizes) - 1) + [True]
    assert count(halves, cut=[True] * len(halves)).clump.sum() == 0


@pytest.fixture(scope="module")
def device():
    with HostDevice(precision="fp32", lanes=1, threads=1) as device:
        yield device


def blurred(pixels, boxes, pack, device):
    frame = Frame(pixels=np.ascontiguousarray(pixels))
    settings = pack.manifest
    fit = fit_canvas((frame.height, frame.width), pixel_um=None, settings=settings.detector)
    windows = crop_windows(boxes, canvas_scale=fit.scale, settings=settings.classifier)
    patches = crop_patches(device, [frame], [windows], settings=settings.classifier, threads=1)
    [flag] = blurred_frames(
        device, patches, [windows], canvas_scales=[fit.scale], settings=settings
    )
    return flag


def blur(pixels, sigma_px):
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma_px)))


def test_edge_widths_are_those_of_the_drawn_edges():
    x = np.arange(80, dtype=np.float32)
    ramps = [np.clip((20 - abs(x % 40 - 20) - 2) / width, 0, 1) for width in (4, 8, 16)]
    patches = np.stack([np.broadcast_to(ramp, (3, 80, 80)) for ramp in ramps])
    np.testing.assert_allclose(edge_widths(patches), [4, 8, 16], rtol=0.05)
    np.testing.assert_allclose(edge_widths(5 - 3 * patches), edge_widths(patches), rtol=1e-5)
    noisy = patches + np.random.default_rng(0).normal(0, 0.01, patches.shape).astype(np.float32)
    np.testing.assert_allclose(edge_widths(noisy), [4, 8, 16], rtol=0.35)
    assert np.isfinite(edge_widths(np.zeros((2, 3, 80, 80), np.float16))).all()


@pytest.mark.parametrize("seed", range(3))
def test_rendered_fields_are_sharp_until_they_are_blurred(pack, device, seed):
    field = render_field(seed=seed, width=640, height=480, cells=40)
    boxes = field.boxes
    assert not blurred(field.pixels, boxes, pack, device)
    assert not blurred(blur(field.pixels, 1), boxes, pack, device)
    assert blurred(blur(field.pixels, 2.5), boxes, pack, device)
    larger = Image.fromarray(field.pixels).resize((1280, 960), Image.Resampling.BICUBIC)
    assert not blurred(np.asarray(larger), boxes * 2, pack, device)
    assert blurred(blur(np.asarray(larger), 5), boxes * 2, pack, device)


def test_frames_are_compared_separately_by_packs_with_a_scale(pack, device):
    rng = np.random.default_rng(0)
    sharp = rng.random((40, 3, 80, 80), np.float32)
    flat = np.broadcast_to(np.linspace(0, 1, 80, dtype=np.float32), (3, 3, 80, 80))
    windows = [np.tile(np.float32([0, 0, 54, 54]), (n, 1)) for n in (40, 3, 40)]
    patches = np.concatenate([sharp, flat, sharp])
    options = {"canvas_scales": [2 / 3] * 3, "settings": pack.manifest}
    assert blurred_frames(device, patches, windows, **options) == [False, True, False]
    detector = pack.manifest.detector.model_copy(update={"um_per_canvas_px": None})
    options["settings"] = pack.manifest.model_copy(update={"detector": detector})
    assert blurred_frames(device, patches, windows, **options) == [False] * 3
