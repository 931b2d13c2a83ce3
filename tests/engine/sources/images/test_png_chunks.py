"""PNG: what is damaged is found by its checksums; what is large and no pixels is skipped."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import decode_image, decode_picture

from .image_files import error_of, pillow_bytes, smear

PLAIN = pillow_bytes(smear(), "PNG")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(kind: bytes, body: bytes, *, data: bytes = PLAIN) -> bytes:
    """The PNG with a chunk behind its header."""
    return data[:33] + chunk(kind, body) + data[33:]


@settings(max_examples=400, deadline=None)
@given(st.integers(8, len(PLAIN) - 1), st.integers(1, 255))
@example(36, 1)
@example(106, 1)
@example(338, 1)
def test_any_flipped_byte_is_refused(position, mask):
    damaged = bytearray(PLAIN)
    damaged[position] ^= mask
    with pytest.raises(ImageError, match="damaged PNG"):
        decode_image(bytes(damaged), name="a")


@given(st.integers(1, len(PLAIN) - 9))
def test_any_lost_part_is_refused(count):
    for data in (PLAIN[:-count], PLAIN[:8] + PLAIN[8 + count :]):
        with pytest.raises(ImageError, match="damaged"):
            decode_image(data, name="a")


def test_large_texts_and_profiles_are_skipped():
    text = zlib.compress(b"<xmp>" + b"history " * 400_000)
    for kind, body in (
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text),
        (b"zTXt", b"Raw\0\0" + text),
        (b"tEXt", b"Comment\0" + b"x" * 3_000_000),
        (b"iCCP", b"profile\0\0" + text),
        (b"prVt", b"anything"),
    ):
        np.testing.assert_array_equal(decode_image(with_chunk(kind, body), name="a"), smear())


def test_what_follows_the_end_is_no_part_of_it():
    np.testing.assert_array_equal(decode_image(PLAIN + b"trailer" * 99, name="a"), smear())


def test_chunks_out_of_order_are_refused():
    header, rest = PLAIN[8:33], PLAIN[33:]
    for data in (
        PLAIN[:8] + rest,
        PLAIN[:8] + header + header + rest,
        PLAIN[:33] + chunk(b"IEND", b""),
        PLAIN[:-12] + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", b"") + PLAIN[-12:],
        with_chunk(b"CrIT", b"unknown, and needed"),
    ):
        assert "damaged PNG" in error_of(data)


def test_the_pixels_are_those_of_pillow_with_everything_kept():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 1000)
    file = io.BytesIO()
    palette = Image.fromarray(smear()).quantize(200)
    palette.save(file, "PNG", pnginfo=info, transparency=3)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    np.testing.assert_array_equal(decode_image(file.getvalue(), name="a"), expected)


def test_pixels_per_metre_give_the_scale_where_they_can_be_a_microscopes():
    def scale(x: int, y: int, unit: int = 1):
        return decode_picture(with_chunk(b"pHYs", struct.pack(">IIB", x, y, unit)), name="a").scale

    assert scale(10_000_000, 10_000_000).pixel_um == pytest.approx(0.1)
    assert scale(2835, 2835) is None, "72 dots an inch"
    assert scale(10_000_000, 5_000_000) is None
    assert scale(10_000_000, 10_000_000, unit=0) is None
