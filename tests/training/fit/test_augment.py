"""Boxes turn with their images; colours change as light and stain would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.training.fit.augment import (
    blur_some,
    flip_and_turn,
    flip_and_turn_boxes,
    jpeg,
    vary_colour,
    vary_light,
)

seeds = st.integers(0, 2**31)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(seeds, st.integers(1, 3), st.data())
def test_boxes_turn_with_their_images(seed: int, count: int, data: st.DataObject):
    side = 12
    images = torch.zeros(count, 3, side, side)
    boxes = []
    for image in images:
        x, y = (data.draw(st.integers(0, side - 4)) for _ in range(2))
        width, height = data.draw(st.integers(1, side - x)), data.draw(st.integers(1, side - y))
        image[:, y : y + height, x : x + width] = 1
        boxes.append(torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32))
    turned, moved = flip_and_turn_boxes(images, boxes, generator=seeded(seed))
    assert turned.shape == images.shape
    for image, box in zip(turned, moved, strict=True):
        rows, columns = np.nonzero(image[0].numpy())
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == [found]


def test_all_eight_symmetries_occur_and_nothing_else():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    plain = image[0, 0].numpy()
    symmetries = {np.rot90(m, k).tobytes() for m in (plain, plain.T) for k in range(4)}
    assert len(symmetries) == 8
    turned = flip_and_turn(image.repeat(400, 1, 1, 1), generator=seeded(0))
    assert {patch[0].contiguous().numpy().tobytes() for patch in turned} == symmetries
    boxed = {
        flip_and_turn_boxes(image, [torch.zeros(0, 4)], generator=seeded(seed))[0]
        .contiguous()
        .numpy()
        .tobytes()
        for seed in range(100)
    }
    assert boxed == symmetries


@given(seeds)
def test_colours_depend_on_the_generator_alone(seed: int):
    images = torch.rand(4, 3, 8, 8, generator=seeded(1))
    first = vary_colour(images, generator=seeded(seed))
    torch.rand(7)  # the global generator has no part in it
    assert torch.equal(first, vary_colour(images, generator=seeded(seed)))
    assert not torch.equal(first, vary_colour(images, generator=seeded(seed + 1)))


def test_no_strength_changes_nothing():
    images = torch.rand(4, 3, 8, 8)
    same = vary_colour(images, generator=seeded(0), strength=0.0, offset=3.0)
    torch.testing.assert_close(same, images, rtol=0, atol=1e-5)
    still = vary_light(images, generator=seeded(0), strength=0.0, offset=3.0)
    torch.testing.assert_close(still, images, rtol=0, atol=1e-5)
    assert torch.equal(blur_some(images, generator=seeded(0), share=0.0, most_px=1.5), images)


@given(seeds)
def test_light_varies_evenly_across_an_image(seed: int):
    offset = 3.0
    images = torch.full((3, 3, 9, 13), 1.0)
    lit = vary_light(images, generator=seeded(seed), strength=0.2, offset=offset) + offset
    assert float((lit / (1 + offset) - 1).abs().max()) <= 0.4 + 1e-6
    for axis in (2, 3):  # a straight slope has no second difference
        assert float(lit.diff(n=2, dim=axis).abs().max()) < 1e-4
    torch.testing.assert_close(lit[..., 4, 6], torch.full((3, 3), 1 + offset))


@given(seeds)
def test_blur_spreads_light_and_keeps_its_sum(seed: int):
    images = torch.zeros(2, 3, 21, 21)
    images[..., 10, 10] = 1
    blurred = blur_some(images, generator=seeded(seed), share=1.0, most_px=1.5)
    torch.testing.assert_close(blurred.sum(dim=(2, 3)), torch.ones(2, 3))
    assert (blurred[..., 10, 10] < 1).all()
    torch.testing.assert_close(blurred, blurred.flip(2))
    torch.testing.assert_close(blurred, blurred.transpose(2, 3))


@pytest.mark.parametrize("quality", [30, 95])
def test_jpeg_keeps_the_picture(quality):
    rows, columns = np.mgrid[:64, :96]
    image = np.stack([rows * 3, columns * 2, rows + columns], axis=2).astype(np.uint8)
    seen = jpeg(image, quality=quality)
    assert seen.shape == image.shape
    assert seen.dtype == np.uint8
    assert 0 < np.abs(seen.astype(int) - image).mean() < 8


def test_gain_acts_on_light():
    """Flat grey images keep no contrast to change: what is left is light times a gain, in each channel."""
    light, offset = 2.5, 3.5
    images = torch.full((200, 3, 16, 16), light - offset)
    varied = vary_colour(images, generator=seeded(3), offset=offset).mean(dim=(2, 3)) + offset
    gains = varied / light
    low, high = (1 - 0.12) * (1 - 0.15), (1 + 0.12) * (1 + 0.15)
    grey = gains.mean(dim=1)
    assert (low - 0.02 < grey).all()
    assert (grey < high + 0.02).all()
    assert float(grey.std()) > 0.05
    dark = vary_colour(torch.full((200, 3, 16, 16), -offset), generator=seeded(3), offset=offset)
    assert float((dark.mean(dim=(1, 2, 3)) + offset).abs().max()) < 0.02
