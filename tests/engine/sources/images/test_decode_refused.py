"""Files that are no image, damaged, too large or hostile: each refused with its reason, or read
whole.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import MAX_FILE_BYTES, decode_image, read_image
from rbc_engine.text import printable
from rbc_engine.types.frames import MAX_SIDE_PX, MIN_SIDE_PX

from .image_files import error_of, pillow_bytes, png_bytes, retag, smear, tiff_bytes


def test_animation_is_refused():
    frames = [Image.fromarray(smear(seed=s)) for s in range(3)]
    for kind in ("PNG", "WEBP"):
        data = pillow_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
        assert "animation" in error_of(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_sides_outside_the_limits_are_refused(kind):
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    long_px = 16383 if kind == "WEBP" else 30_000
    cases = [(1, 1), (MIN_SIDE_PX - 1, 100), (100, MIN_SIDE_PX - 1)]
    cases += [(long_px, 40), (40, MAX_SIDE_PX + 1)]
    for width, height in cases:
        message = error_of(pillow_bytes(Image.new("L", (width, height)), kind, **options))
        assert f"{width}x{height} px" in message
        assert f"{MIN_SIDE_PX if min(width, height) < MIN_SIDE_PX else MAX_SIDE_PX} px" in message


def test_sides_at_the_limits_are_read():
    for width, height in ((MIN_SIDE_PX, MAX_SIDE_PX), (MAX_SIDE_PX, MIN_SIDE_PX)):
        data = pillow_bytes(Image.new("RGB", (width, height)), "JPEG")
        assert decode_image(data, name="a").shape == (height, width, 3)


def test_bombs_are_refused_by_their_header():
    """The pixel data are rubbish: a message about them would mean that they were read first."""
    png = png_bytes(60_000, 60_000, bits=8, colour_type=2, pixels=b"rubbish")
    assert "60000x60000 px" in error_of(png)
    tiff = tiff_bytes(smear(), photometric="rgb", compression="zlib")
    assert "60000x60000 px" in error_of(retag(tiff, ImageWidth=60_000, ImageLength=60_000))
    tiled = tiff_bytes(smear(), photometric="rgb", compression="zlib", tile=(16, 16))
    assert "tiles" in error_of(retag(tiled, TileWidth=2**31 - 16, TileLength=2**31 - 16))
    webp = bytearray(pillow_bytes(smear(), "WEBP", icc_profile=b"any"))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = b"\xff" * 6  # canvas width and height less one
    assert f"{MAX_SIDE_PX} px" in error_of(bytes(webp))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"Hello, this is text\n", "no JPEG"),
        (b"<svg></svg>", "XML"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"GIF89a", "a GIF"),
        (b"\xff", "no JPEG"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"II*\0", "TIFF"),
        (b"II*\0\x08\0\0\0\xff\xff", "TIFF"),
        (b"BM", "BMP"),
        (b"RIFF\0\0\0\0WEBP", "WebP"),
    ],
)
def test_files_that_are_no_image(data, expected):
    assert expected in error_of(data)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_truncated_file_is_refused(kind, kept):
    data = pillow_bytes(smear(96, 128), kind)
    if kind == "PNG":
        data = data[:-16]  # without its end, a PNG may still hold every pixel
    assert "damaged" in error_of(data[: int(len(data) * kept)])


def test_jpeg_with_a_flipped_bit_is_refused_where_lenient_decoders_take_it():
    data = pillow_bytes(smear(96, 128), "JPEG", quality=95)
    scan = data.index(b"\xff\xda") + 14
    # One bit that turns a byte of coded data into the start of a marker.
    at = next(
        i
        for i in range(scan, len(data) - 3)
        if (data[i] ^ 0xFF).bit_count() == 1 and data[i + 1] not in (0, 0xFF)
    )
    flipped = data[:at] + b"\xff" + data[at + 1 :]
    lenient = simplejpeg.decode_jpeg(flipped, "RGB", strict=False)
    assert lenient.shape == (96, 128, 3)
    assert "damaged" in error_of(flipped)


def test_name_in_messages_is_one_printable_line():
    message = error_of(b"", name="épreuve 7.jpg")
    assert "empty" in message
    with pytest.raises(ImageError) as caught:
        decode_image(b"", name="a\nb\udcff.jpg")
    str(caught.value).encode("utf-8")
    assert str(caught.value).startswith("a\\nb\\udcff.jpg: ")


@given(st.text("a7 \\\n\t\0é漢\u2028\udcff"))
def test_printable_is_one_utf8_line_and_stable(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert shown.isprintable()
    assert printable(shown) == shown


def test_memory_error_is_not_taken_for_a_bad_file(monkeypatch):
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(simplejpeg, "decode_jpeg", exhausted)
    with pytest.raises(MemoryError):
        decode_image(pillow_bytes(smear(), "JPEG"), name="a")


SAMPLES = {
    "JPEG": pillow_bytes(smear(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "PNG": pillow_bytes(smear(), "PNG"),
    "WebP": pillow_bytes(smear(), "WEBP"),
    "TIFF strips": tiff_bytes(smear(), photometric="rgb", rowsperstrip=8),
    "TIFF tiles": tiff_bytes(smear(), photometric="rgb", tile=(32, 32), compression="lzw"),
    "TIFF deflate": tiff_bytes(smear(), photometric="rgb", compression="zlib", predictor=True),
}


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(SAMPLES)), data=st.data())
def test_flipped_bytes_never_raise_anything_but_image_error(kind, data):
    damaged = bytearray(SAMPLES[kind])
    header_or_anywhere = st.integers(0, 200) | st.integers(0, len(damaged) - 1)
    flips = st.lists(st.tuples(header_or_anywhere, st.integers(1, 255)), min_size=1, max_size=4)
    for position, mask in data.draw(flips):
        damaged[position] ^= mask
    try:
        decoded = decode_image(bytes(damaged), name="a")
    except ImageError:
        error_of(bytes(damaged))
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    if kind == "PNG":  # it has checksums
        np.testing.assert_array_equal(decoded, smear())


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(sorted(SAMPLES)), data=st.data())
def test_truncated_bytes_are_refused_or_whole(kind, data):
    whole = SAMPLES[kind]
    kept = data.draw(st.integers(0, len(whole) - 1))
    try:
        decoded = decode_image(whole[:kept], name="a")
    except ImageError:
        return
    np.testing.assert_array_equal(decoded, decode_image(whole, name="a"))


def test_file_over_the_size_limit_is_refused_unread(tmp_path):
    path = tmp_path / "big.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse: takes no space
    with pytest.raises(ImageError, match=str(MAX_FILE_BYTES)):
        read_image(path, name="big.jpg")


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    for path in (tmp_path / "pipe.jpg", tmp_path):
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(path, name="a")
    with pytest.raises(ImageError, match="a: cannot be read"):
        read_image(tmp_path / "missing.jpg", name="a")


def test_nothing_is_printed_about_bad_files(tmp_path):
    """Neither Pillow's warnings, nor tifffile's log, nor a C library's own messages."""
    tiff = SAMPLES["TIFF strips"]
    samples = [
        png_bytes(12_000, 12_000, bits=8, colour_type=2, pixels=b""),
        png_bytes(60_000, 60_000, bits=8, colour_type=2, pixels=b""),
        SAMPLES["JPEG"][:-9],
        SAMPLES["PNG"][:-60],
        tiff[: len(tiff) // 2],
        tiff[:100],
        retag(tiff, StripByteCounts=(0,) * 6),
        b"II*\0\x08\0\0\0\xff\xff" + b"\x07" * 400,
    ]
    for index, data in enumerate(samples):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    script = """
import pathlib, sys
from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import read_image
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        read_image(path, name=path.name)
    except ImageError:
        continue
    sys.exit(f"{path} was read")
"""
    ran = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
