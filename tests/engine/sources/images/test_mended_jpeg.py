"""JPEGs with spare bytes, without an end, of unusual samplings: read if every block is there."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.sources.images.jpeg_segments import jpeg_parts

from .image_files import error_of, pillow_bytes, smear

EOI = b"\xff\xd9"
PLAIN = pillow_bytes(smear(96, 128), "JPEG", quality=90)
RESTARTS = pillow_bytes(smear(96, 128), "JPEG", quality=90, restart_marker_rows=1)
PROGRESSIVE = pillow_bytes(smear(96, 128), "JPEG", quality=90, progressive=True)


def decoded(data: bytes) -> np.ndarray:
    return decode_image(data, name="a")


def coded(factors: tuple[int, ...], *, height: int = 90, width: int = 130) -> bytes:
    """A JPEG with these sampling factors, which no encoder at hand writes: blocks of one level."""
    draw = np.random.default_rng(1)
    across, down = max(f >> 4 for f in factors), max(f & 15 for f in factors)
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    bits: list[str] = []
    before = [0] * len(factors)
    for _ in range(units):
        for number, factor in enumerate(factors):
            for _ in range((factor >> 4) * (factor & 15)):
                level = int(draw.integers(-100, 100))
                change, before[number] = level - before[number], level
                size = abs(change).bit_length()
                value = change if change > 0 else change + 2**size - 1
                bits.append(f"{size:04b}" + (f"{value:0{size}b}" if size else "") + "00")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    components = b"".join(bytes((n, f, 0)) for n, f in enumerate(factors, 1))
    frame = struct.pack(">BHHB", 8, height, width, len(factors)) + components
    dc = bytes((0x00, 0, 0, 0, 9, *[0] * 12, *range(9)))  # sizes 0 to 8 in four bits each
    ac = bytes((0x10, 0, 2, *[0] * 14, 0x00, 0x01))  # 00: no more in this block
    scan = bytes((len(factors), *(x for n in range(1, len(factors) + 1) for x in (n, 0)), 0, 63, 0))
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, b"\0" + bytes((8, *[1] * 63))),
            segment(0xC0, frame),
            segment(0xC4, dc),
            segment(0xC4, ac),
            segment(0xDA, scan),
            data.replace(b"\xff", b"\xff\0"),
            EOI,
        )
    )


@pytest.mark.parametrize("data", [PLAIN, RESTARTS, PROGRESSIVE])
def test_without_an_end_it_is_read(data):
    for cut in (data[:-2], data[:-1], data[:-2] + b"\xff", data + b"junk" * 99):
        np.testing.assert_array_equal(decoded(cut), decoded(data))


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=40).filter(lambda spare: b"\xff" not in spare), st.data())
def test_spare_bytes_between_the_segments_of_the_header_are_skipped(spare, data):
    markers = [m.start() for m in re.finditer(rb"\xff[\xdb\xc0\xc4\xda]", PLAIN)]
    at = data.draw(st.sampled_from(markers))
    try:
        pixels = decoded(PLAIN[:at] + spare + PLAIN[at:])
    except ImageError:  # pragma: no cover - would fail
        pytest.fail(f"refused with {spare!r} before byte {at}")
    np.testing.assert_array_equal(pixels, decoded(PLAIN))


@pytest.mark.parametrize("data", [PLAIN, RESTARTS])
@pytest.mark.parametrize("spare", [b"\0", b"\0\0", bytes(1000), b"\x12\x34", b"\xff\xff"])
def test_spare_bytes_behind_coded_data_are_skipped(data, spare):
    np.testing.assert_array_equal(decoded(data[:-2] + spare + EOI), decoded(data))
    np.testing.assert_array_equal(decoded(data[:-2] + spare), decoded(data))


def test_spare_bytes_before_restart_markers_are_skipped():
    at = RESTARTS.index(b"\xff\xd0")
    spare = RESTARTS[:at] + b"\0\0\0" + RESTARTS[at:]
    np.testing.assert_array_equal(decoded(spare), decoded(RESTARTS))


@settings(max_examples=120, deadline=None)
@given(st.sampled_from([PLAIN, RESTARTS, PROGRESSIVE]), st.data())
def test_where_blocks_are_missing_it_is_refused(data, draw):
    scan = data.index(b"\xff\xda") + 14
    # The last bytes may hold nothing but zeros, which the decoder adds by itself.
    cut = draw.draw(st.integers(scan, len(data) - 34))
    for ending in (b"", EOI):
        with pytest.raises(ImageError, match="damaged JPEG"):
            decoded(data[:cut] + ending)


@given(st.sampled_from([PLAIN, RESTARTS, PROGRESSIVE]), st.integers(3, 34))
def test_a_few_last_bytes_are_missed_or_change_nothing(data, missing):
    try:
        pixels = decoded(data[:-missing] + EOI)
    except ImageError:
        return
    np.testing.assert_array_equal(pixels, decoded(data))


def test_a_hole_in_the_middle_is_refused():
    markers = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", RESTARTS)]
    begin, end = markers[1], markers[2]
    assert "restart marker" in error_of(RESTARTS[:begin] + RESTARTS[end:])
    emptied = RESTARTS[: begin + 2] + RESTARTS[end:]
    assert "damaged JPEG" in error_of(emptied)


def test_a_progressive_file_without_its_last_scan_is_refused():
    last = PROGRESSIVE.rindex(b"\xff\xda")
    assert "scans are missing" in error_of(PROGRESSIVE[:last])


def test_unusual_samplings_are_read_as_pillow_does_and_strictly():
    for factors in ((0x22, 0x21, 0x11), (0x42, 0x11, 0x11), (0x31, 0x11, 0x11)):
        data = coded(factors)
        with pytest.raises(ValueError, match="subsampling"):
            simplejpeg.decode_jpeg_header(data)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(decoded(data), expected)
        np.testing.assert_array_equal(decoded(data[:-2]), expected)
        np.testing.assert_array_equal(decoded(data[:-2] + b"\0\0" + EOI), expected)
        for cut in (9, 40, 200):
            assert "blocks are missing" in error_of(data[:-cut] + EOI)


def test_parts_are_the_file():
    for data in (PLAIN, RESTARTS, PROGRESSIVE):
        parts = jpeg_parts(data)
        assert parts.joined() == data
        assert (parts.width, parts.height, parts.whole_scans) == (128, 96, True)
