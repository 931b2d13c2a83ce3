"""What report.html keeps of many pictures, and how it draws them."""

from __future__ import annotations

import io
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rbc_engine.sinks.report.pictures import FIELD_LONG_SIDE_PX, PATCH_PX, field_jpeg, patch_jpeg
from rbc_engine.sinks.report.stock import Stock

offers = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.integers(1, 20)))


@given(offers, st.integers(1, 100), st.none() | st.integers(1, 4))
def test_a_stock_keeps_the_best_of_each_group_within_its_budget(items, budget, most):
    stock = Stock(budget_bytes=budget, most=most)
    offered = defaultdict(list)
    for serial, (group, rank, size) in enumerate(items):
        stock.add(group, rank, (rank, serial, size), size=size)
        offered[group].append((rank, serial, size))
    kept = {group: list(stock.of(group)) for group in "abc"}
    assert sum(size for group in kept.values() for *_, size in group) <= budget
    fits = sum(size for *_, size in items) <= budget
    for group, held in kept.items():
        ranks = [rank for rank, *_ in held]
        best = sorted(rank for rank, *_ in offered[group])
        assert ranks == best[: len(ranks)]
        if most is not None:
            assert len(held) <= most
        if fits:
            assert len(held) == min(len(best), most or len(best))


@pytest.mark.parametrize("size", [(32, 32), (480, 640), (3000, 1000), (33, 2000)])
def test_pictures_keep_their_shape(size):
    rng = np.random.default_rng(0)
    small = rng.integers(90, 170, (8, 8, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))
    picture = Image.open(io.BytesIO(field_jpeg(pixels)))
    scale = min(1, FIELD_LONG_SIDE_PX / max(size))
    assert picture.size == tuple(max(1, round(side * scale)) for side in size[::-1])
    expected = Image.fromarray(pixels).resize(picture.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(picture, int) - np.asarray(expected)).mean() < 8


@given(st.lists(st.floats(-50, 250, width=32), min_size=4, max_size=4))
def test_patches_show_the_region_wherever_it_lies(sides):
    x0, x1 = sorted(sides[:2])
    y0, y1 = sorted(sides[2:])
    pixels = np.full((120, 160, 3), 200, np.uint8)
    patch = Image.open(io.BytesIO(patch_jpeg(pixels, np.array([x0, y0, x1, y1], np.float32))))
    assert patch.size == (PATCH_PX, PATCH_PX)
    assert np.abs(np.asarray(patch, int) - 200).max() <= 2  # nothing from beyond the frame


def test_a_patch_is_centred_on_its_region():
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[80:120, 140:180] = 255
    patch = np.asarray(Image.open(io.BytesIO(patch_jpeg(pixels, np.array([140, 80, 180, 120])))))
    ys, xs = np.nonzero(patch[..., 0] > 128)
    assert (xs.mean(), ys.mean()) == pytest.approx((35.5, 35.5), abs=1)
    assert np.ptp(xs) + 1 == pytest.approx(72 / 1.4, abs=2)
