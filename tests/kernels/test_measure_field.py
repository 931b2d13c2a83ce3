import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rbc_engine.lanes.measure import measure_field
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.training.datasets.formats.chula12 import load_chula12

from . import measure_reference as reference

STAINS = {
    "as rendered": None,
    "pink on mint": ((182, 222, 193), (0.15, 1.0, 0.45)),
    "violet on white": ((250, 240, 244), (0.9, 1.6, 0.5)),
    "grey, unstained": ((170, 170, 170), (0.5, 0.5, 0.5)),
    "blue": ((225, 228, 214), (1.9, 1.3, 0.6)),
}


def restained(pixels, stain):
    """The field with other colours: each channel as dense as `stain` says, beside the green of a
    rendered smear.
    """
    if stain is None:
        return pixels
    light, strength = stain
    green = pixels[..., 1].astype(np.float64)
    density = np.log(np.quantile(green, 0.95) / np.maximum(green, 1))
    levels = np.array(light) * np.exp(-density[..., None] * np.array(strength))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def true_size(field):
    """Median root of the box area of cells that do not lie at the border, px."""
    height, width = field.mask.shape
    x0, y0, x1, y1 = field.cell_boxes.T
    clear = (x0 > 1) & (y0 > 1) & (x1 < width - 1) & (y1 < height - 1)
    return float(np.median(np.sqrt((x1 - x0) * (y1 - y0))[clear]))


def assert_sound(measured, frame):
    """Whatever the frame, the answer is finite and within its bounds."""
    for value in astuple(measured):
        values = value if isinstance(value, tuple) else (value,)
        assert all(math.isfinite(v) for v in values if isinstance(v, int | float))
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = measured.lit_box
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert 0 < measured.lit_share <= 1
    assert 0 <= measured.confidence <= 1
    assert 0 <= measured.foreground <= 1
    assert all(0 <= level <= 255 for level in measured.background)
    assert (measured.cell_px is None) == (measured.size_from == "none")
    assert measured.cell_px is None or 0 < measured.cell_px < 3 * max(height, width)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    hw=st.tuples(st.integers(90, 230), st.integers(90, 260)),
    cell_px=st.floats(18, 60),
    crowding=st.floats(0.05, 0.4),
    touching=st.floats(0, 1),
    stain=st.sampled_from(sorted(STAINS)),
)
def test_matches_the_reference(seed, hw, cell_px, crowding, touching, stain):
    cells = round(crowding * hw[0] * hw[1] / cell_px**2)
    field = render_field(
        seed=seed, height=hw[0], width=hw[1], cells=cells, cell_px=cell_px, touching=touching
    )
    frame = restained(field.pixels, STAINS[stain])
    measured = measure_field(frame)
    size_from, size, confidence, seen = reference.measure(frame)
    assert_sound(measured, frame)
    assert not measured.surround
    # A stretch or a disc that lies on a limit may fall on either side of it.
    assert measured.round_count == len(seen["ovals"])
    assert measured.arc_count == pytest.approx(len(seen["arcs"]), abs=2 + 0.02 * len(seen["arcs"]))
    assert measured.confidence == pytest.approx(confidence, abs=0.02)
    assert measured.size_from == size_from
    assert (measured.cell_px or 0) == pytest.approx(size, rel=0.02)
    np.testing.assert_array_equal(measured.background, seen["background"])
    if seen["any"]:
        assert measured.foreground == pytest.approx(seen["foreground"], abs=0.002)
        np.testing.assert_allclose(measured.density, seen["density"], atol=0.002)


@pytest.mark.parametrize("stain", sorted(STAINS))
@pytest.mark.parametrize(
    ("width", "height", "cell_px", "cells", "touching"),
    [
        (250, 250, 20, 40, 0.3),
        (640, 480, 40, 60, 0.3),
        (640, 480, 40, 100, 1.0),
        (400, 360, 100, 7, 0.0),
        (1280, 960, 24, 500, 0.5),
        (1280, 960, 200, 14, 0.3),
    ],
)
def test_finds_the_size_of_cells(width, height, cell_px, cells, touching, stain):
    # Nearly round cells of much the same size, or a dozen would not fix the median.
    field = render_field(
        seed=7, width=width, height=height, cells=cells, cell_px=cell_px, touching=touching,
        mix={"oval_disc": 0.8, "stomatocyte": 0.2},
    )  # fmt: skip
    measured = measure_field(restained(field.pixels, STAINS[stain]))
    assert measured.cell_px == pytest.approx(true_size(field), rel=0.1)
    assert measured.confidence > 0.2


@pytest.mark.parametrize("times", [3, 8])
def test_finds_small_cells_on_large_frames(times):
    field = render_field(seed=3, width=640, height=480, cells=70, cell_px=34)
    row = np.concatenate([field.pixels, field.pixels[:, ::-1]] * times, axis=1)
    frame = np.concatenate([row, row[::-1]] * times)
    measured = measure_field(frame)
    assert measured.cell_px == pytest.approx(true_size(field), rel=0.1)


def surrounded(pixels, kind):
    """The frame with a surround, and the box and the share of what is left."""
    height, width = pixels.shape[:2]
    if kind == "letterbox":
        frame = np.zeros((height + 200, width, 3), np.uint8)
        frame[100:-100] = pixels
        return frame, (0, 100, width, height + 100), height / (height + 200)
    radius = min(height, width) / 2 - 5
    ys, xs = np.mgrid[:height, :width] + 0.5
    away = np.hypot(ys - height / 2, xs - width / 2)
    level = 255 if kind == "white" else 6
    frame = np.where((away < radius)[..., None], pixels, level).astype(np.uint8)
    if kind == "off centre":
        frame = np.pad(frame, ((0, 90), (300, 0), (0, 0)), constant_values=level)
    left, top = width / 2 - radius + 300 * (kind == "off centre"), height / 2 - radius
    share = math.pi * radius**2 / (frame.shape[0] * frame.shape[1])
    return frame, (left, top, left + 2 * radius, top + 2 * radius), share


@pytest.mark.parametrize("stain", ["as rendered", "violet on white"])
@pytest.mark.parametrize("kind", ["black", "white", "off centre", "letterbox"])
def test_finds_the_lit_part(kind, stain):
    field = render_field(seed=11, width=900, height=700, cells=90, cell_px=44)
    pixels = restained(field.pixels, STAINS[stain])
    frame, box, share = surrounded(pixels, kind)
    measured, bare = measure_field(frame), measure_field(pixels)
    assert_sound(measured, frame)
    assert measured.surround
    np.testing.assert_allclose(measured.lit_box, box, atol=14)
    assert measured.lit_share == pytest.approx(share, rel=0.06)
    assert measured.cell_px == pytest.approx(true_size(field), rel=0.1)
    np.testing.assert_allclose(measured.background, bare.background, atol=4)
    np.testing.assert_allclose(measured.density, bare.density, atol=0.02)


@pytest.mark.parametrize("level", [0, 6, 255])
def test_finds_a_small_lit_part(level):
    field = render_field(seed=5, width=500, height=500, cells=40, cell_px=40)
    view, _, _ = surrounded(field.pixels, "white" if level == 255 else "black")
    view[view == 6] = level
    frame = np.pad(view, ((700, 400), (900, 500), (0, 0)), constant_values=level)
    measured = measure_field(frame)
    assert measured.surround
    np.testing.assert_allclose(measured.lit_box, (905, 705, 1395, 1195), atol=20)
    assert measured.cell_px == pytest.approx(true_size(field), rel=0.1)


def test_cells_on_saturated_glass_are_no_lit_part():
    field = render_field(seed=2, width=640, height=480, cells=60, cell_px=40)
    frame = restained(field.pixels, ((290, 290, 290), (0.6, 1.2, 0.5)))
    assert (frame.min(axis=2) >= 250).mean() > 0.3
    measured = measure_field(frame)
    assert not measured.surround
    assert measured.cell_px == pytest.approx(true_size(field), rel=0.1)


@pytest.mark.parametrize("loss", [0.4, 0.7])
def test_sees_through_a_vignette(loss):
    field = render_field(seed=4, width=640, height=480, cells=50, cell_px=48)
    ys, xs = np.mgrid[-1:1:480j, -1:1:640j]
    light = 1 - loss * (ys**2 + xs**2) / 2
    measured = measure_field((field.pixels * light[..., None]).astype(np.uint8))
    assert measured.cell_px == pytest.approx(true_size(field), rel=0.1)


def test_white_cells_and_platelets_do_not_count():
    field = render_field(seed=8, width=640, height=480, cells=45, cell_px=40)
    frame = field.pixels.copy()
    ys, xs = np.mgrid[:480, :640]
    rng = np.random.default_rng(0)
    for radius, count in ((45, 4), (5, 40)):
        for y, x in rng.uniform((50, 50), (430, 590), (count, 2)):
            frame[np.hypot(ys - y, xs - x) < radius] = (88, 40, 120)
    assert measure_field(frame).cell_px == pytest.approx(true_size(field), rel=0.12)


@pytest.mark.parametrize("level", [0, 7, 128, 255])
@pytest.mark.parametrize("hw", [(1, 1), (2, 3), (480, 640), (3, 5000), (1200, 1600)])
def test_a_frame_of_one_level_has_no_cells(hw, level):
    frame = np.full((*hw, 3), level, np.uint8)
    measured = measure_field(frame)
    assert_sound(measured, frame)
    assert measured.size_from == "none"
    assert measured.confidence == 0
    assert measured.background == (level, level, level)
    assert not measured.surround


@settings(max_examples=60, deadline=None)
@given(
    frame=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    grow=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_is_sound_on_any_frame(frame, grow):
    for pixels in (frame, frame.repeat(grow[0], axis=0).repeat(grow[1], axis=1)):
        assert_sound(measure_field(pixels), pixels)


@pytest.mark.parametrize("hw", [(5, 9), (300, 400), (1100, 1500)])
def test_is_sound_on_noise(hw):
    rng = np.random.default_rng(1)
    for spread in (3, 40, 255):
        frame = (128 + spread * (rng.random((*hw, 3)) - 0.5)).astype(np.uint8)
        measured = measure_field(frame)
        assert_sound(measured, frame)
        assert measured.confidence < 0.2


def test_gives_the_same_answer_for_a_view_of_a_larger_frame():
    field = render_field(seed=1, width=500, height=400)
    around = np.full((450, 560, 3), 77, np.uint8)
    around[20:420, 30:530] = field.pixels
    first, second = measure_field(field.pixels), measure_field(around[20:420, 30:530])
    assert first == second == measure_field(field.pixels)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 8, 3), np.uint8)[:, ::2],
        [[1, 2, 3]],
    ],
)
def test_refuses_what_is_no_frame(frame):
    with pytest.raises(ValueError, match=r"frames\[0\]"):
        measure_field(frame)


@pytest.mark.real
@pytest.mark.slow
def test_finds_the_size_of_real_cells(real_data):
    errors = []
    for field in load_chula12(real_data / "chula12", threads=2).fields[::7]:
        frame = decode_image(field.path.read_bytes(), name=field.path.name)
        x0, y0, x1, y1 = field.boxes.T
        clear = (x0 > 2) & (y0 > 2) & (x1 < frame.shape[1] - 2) & (y1 < frame.shape[0] - 2)
        sizes = np.sqrt((x1 - x0) * (y1 - y0))[clear & field.known & (field.cells == 1)]
        if len(sizes) >= 4:
            errors.append(abs(np.log(measure_field(frame).cell_px / np.median(sizes))))
    assert len(errors) > 40
    assert np.median(errors) < 0.06
    assert np.quantile(errors, 0.9) < 0.2
