"""Samples of 8 to 16 bits: the same field, whatever the depth of the camera."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rbc_engine.sources.images.bit_depth import to_8_bits
from rbc_engine.sources.images.decode import decode_picture

from .image_files import pillow_bytes, png_bytes, retag, tiff_bytes


def field(seed: int = 0) -> np.ndarray:
    """uint8 [80, 90, 3], of a bright background and darker cells."""
    draw = np.random.default_rng(seed)
    levels = draw.normal(225, 6, (80, 90, 3))
    levels[20:40, 30:60] -= 90
    return levels.clip(0, 250).astype(np.uint8)


def deep(eight: np.ndarray, bits: int) -> np.ndarray:
    """As a camera of so many bits would have it, unscaled in 16."""
    return np.rint(eight.astype(np.float64) * (2**bits - 1) / 255).astype(np.uint16)


def files(samples: np.ndarray) -> dict[str, bytes]:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    height, width = samples.shape[:2]
    return {
        "TIFF": tiff_bytes(samples, photometric="rgb"),
        "TIFF, grey": tiff_bytes(samples[..., 0].copy(), photometric="minisblack"),
        "PNG": png_bytes(width, height, bits=16, colour_type=2, pixels=rows),
        "PNG, grey": pillow_bytes(Image.fromarray(samples[..., 0]), "PNG"),
    }


@settings(max_examples=30, deadline=None)
@given(
    bits=st.sampled_from([8, 10, 12, 14, 16]),
    hot=st.integers(0, 6),
    seed=st.integers(0, 5),
)
def test_the_depth_is_told_by_the_values_hot_pixels_apart(bits, hot, seed):
    eight = field(seed)
    samples = deep(eight, bits)
    samples.reshape(-1)[:: samples.size // 9][:hot] = 65535
    for kind, data in files(samples).items():
        picture = decode_picture(data, name=kind)
        expected = eight if "grey" not in kind else np.repeat(eight[..., :1], 3, axis=2)
        off = np.abs(picture.pixels.astype(int) - expected) > 0
        assert off.sum() <= 3 * hot, kind
        assert bool(picture.notes) == (bits < 16)
        assert all(f"{bits}-bit camera" in note for note in picture.notes)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_tags_tell_the_depth(bits):
    """A dark picture, which by its values would be taken for one of fewer bits."""
    dark = deep(field() // 8, bits)
    expected = np.rint(dark * 255.0 / (2**bits - 1)).astype(np.uint8)
    tagged = tiff_bytes(dark, photometric="rgb", extratags=[(281, 3, 3, (2**bits - 1,) * 3, True)])
    ome = tiff_bytes(dark, photometric="rgb", ome=True, metadata={"SignificantBits": bits})
    for data in (tagged, ome):
        picture = decode_picture(data, name="a")
        np.testing.assert_array_equal(picture.pixels, expected)
        assert not picture.notes


def test_packed_12_bit_samples():
    """Two samples in three bytes, as some cameras store them."""
    values = deep(field(), 12)[..., 0]
    pairs = values.reshape(-1, 2).astype(np.uint32)
    words = pairs[:, 0] << 12 | pairs[:, 1]
    packed = np.stack([words >> 16, words >> 8 & 255, words & 255], axis=1).astype(np.uint8)
    data = tiff_bytes(np.zeros((80, 135), np.uint8), photometric="minisblack", metadata=None)
    assert data.endswith(bytes(80 * 135))
    data = retag(data, ImageWidth=90, BitsPerSample=12)[: -80 * 135] + packed.tobytes()
    picture = decode_picture(data, name="a")
    np.testing.assert_array_equal(picture.pixels[..., 0], field()[..., 0])
    assert not picture.notes


def test_all_16_bits_are_rounded():
    values = np.arange(65536, dtype=np.uint16)
    pixels, notes = to_8_bits(values)
    np.testing.assert_array_equal(pixels, np.rint(values / 257).astype(np.uint8))
    assert not notes


def test_a_black_picture_is_black():
    assert not to_8_bits(np.zeros((40, 40), np.uint16))[0].any()
