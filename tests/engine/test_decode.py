"""Reading images: pixels against Pillow and tifffile, and every kind of bad file."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rbc_engine.errors import ImageError
from rbc_engine.sources.decode import (
    MAX_FILE_BYTES,
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    decode_image,
    printable,
    read_image,
)


def smear(height: int = 48, width: int = 64, *, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: smooth blobs, so that JPEG has something like a smear to code."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def pillow_bytes(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff_bytes(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def png_bytes(width: int, height: int, *, bits: int, colour_type: int, pixels: bytes) -> bytes:
    """A PNG written by hand: Pillow writes no 16-bit colour, and no bombs."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    scanlines = zlib.compress(pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", scanlines) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def retag(tiff: bytes, **values: object) -> bytes:
    """The TIFF with tags of its first page overwritten."""
    file = io.BytesIO(tiff)
    with tifffile.TiffFile(file) as opened:
        tags = opened.pages[0].tags
        for name, value in values.items():
            tags[name].overwrite(value)
        return file.getvalue()


def error_of(data: bytes, name: str = "field 1.img") -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, name=name)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert "; " in message, "every message ends with a remedy"
    return message


def test_plain_jpeg_is_pillows_to_the_bit():
    data = pillow_bytes(smear(), "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    decoded = decode_image(data, name="a")
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_jpeg_variants(options):
    data = pillow_bytes(smear(), "JPEG", quality=80, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data, name="a"), expected)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_lossless_formats_keep_every_pixel(kind, options):
    image = smear()
    np.testing.assert_array_equal(
        decode_image(pillow_bytes(image, kind, **options), name="a"), image
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF"])
def test_grayscale_becomes_three_equal_channels(kind):
    data = pillow_bytes(Image.fromarray(smear()).convert("L"), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data, name="a"), np.stack([expected] * 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_dropped(kind):
    alpha = np.random.default_rng(1).integers(1, 256, (48, 64, 1), np.uint8)
    rgba = np.concatenate([smear(), alpha], axis=2)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(
        decode_image(pillow_bytes(rgba, kind, **options), name="a"), smear()
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_palette_is_looked_up(kind):
    image = Image.fromarray(smear()).quantize(256)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(pillow_bytes(image, kind), name="a"), expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_as_pillow_does(kind):
    data = pillow_bytes(Image.fromarray(smear()).convert("CMYK"), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, name="a"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(kind, orientation):
    options = {"lossless": True} if kind == "WEBP" else {}
    exif = Image.Exif()
    exif[0x010E] = "a tag before the orientation"
    exif[0x0112] = orientation
    data = pillow_bytes(smear(), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decode_image(data, name="a")
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("cut", [0, 4, 8, 10, 15])
def test_damaged_exif_leaves_the_image_as_it_is(order, cut):
    mark = b"II*\0" if order == "<" else b"MM\0*"
    block = mark + struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0)
    plain = pillow_bytes(smear(), "JPEG")
    rotated = decode_image(pillow_bytes(smear(), "JPEG", exif=b"Exif\0\0" + block), name="a")
    assert rotated.shape == (64, 48, 3)
    damaged = pillow_bytes(smear(), "JPEG", exif=b"Exif\0\0" + block[:cut])
    np.testing.assert_array_equal(decode_image(damaged, name="a"), decode_image(plain, name="a"))


ALL_16_BIT = np.arange(65536, dtype=np.uint16).reshape(256, 256)
SCALED = np.rint(ALL_16_BIT / 257).astype(np.uint8)
SCALED_RGB = np.stack([SCALED] * 3, axis=2)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_16_bit_tiff_is_scaled_by_its_full_range(byteorder, planar, compression):
    order = (2, 0, 1) if planar == "separate" else (0, 1, 2)
    rgb = np.stack([ALL_16_BIT, ALL_16_BIT[::-1], ALL_16_BIT.T], axis=2)
    data = tiff_bytes(
        np.ascontiguousarray(rgb.transpose(order)),
        photometric="rgb",
        planarconfig=planar,
        byteorder=byteorder,
        compression=compression,
        predictor=compression is not None,
    )
    expected = np.rint(rgb / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(data, name="a"), expected)


@pytest.mark.parametrize(
    "options", [{}, {"tile": (64, 48)}, {"bigtiff": True}, {"rowsperstrip": 7}]
)
def test_16_bit_grayscale_tiff(options):
    data = tiff_bytes(ALL_16_BIT, photometric="minisblack", **options)
    np.testing.assert_array_equal(decode_image(data, name="a"), SCALED_RGB)


def test_inverted_grayscale_tiff():
    data = tiff_bytes(65535 - ALL_16_BIT, photometric="miniswhite")
    np.testing.assert_array_equal(decode_image(data, name="a"), SCALED_RGB)


def test_16_bit_grayscale_png():
    data = pillow_bytes(Image.fromarray(ALL_16_BIT), "PNG")
    np.testing.assert_array_equal(decode_image(data, name="a"), SCALED_RGB)


def png_16_bit_rgb(values: np.ndarray) -> bytes:
    rows = np.repeat(values.astype(">u2")[..., np.newaxis], 3, axis=2)
    scanlines = b"".join(b"\0" + row.tobytes() for row in rows)
    return png_bytes(values.shape[1], values.shape[0], bits=16, colour_type=2, pixels=scanlines)


def test_16_bit_colour_png_is_within_one_level():
    decoded = decode_image(png_16_bit_rgb(ALL_16_BIT), name="a")
    assert np.abs(decoded.astype(int) - SCALED_RGB).max() <= 1


@pytest.mark.parametrize("brightest", [0, 255, 4095])
@pytest.mark.parametrize("kind", ["gray TIFF", "RGB TIFF", "RGBA TIFF", "gray PNG", "RGB PNG"])
def test_16_bit_image_of_a_12_bit_camera_is_refused(kind, brightest):
    gray = np.minimum(ALL_16_BIT[:64, :64] // 4, brightest)
    gray[0, 0] = brightest
    opaque = np.full_like(gray, 65535)
    data = {
        "gray TIFF": lambda: tiff_bytes(gray, photometric="minisblack"),
        "RGB TIFF": lambda: tiff_bytes(np.stack([gray] * 3, axis=2), photometric="rgb"),
        "RGBA TIFF": lambda: tiff_bytes(
            np.stack([gray] * 3 + [opaque], axis=2), photometric="rgb", extrasamples=["unassalpha"]
        ),
        "gray PNG": lambda: pillow_bytes(Image.fromarray(gray), "PNG"),
        "RGB PNG": lambda: png_16_bit_rgb(gray),
    }[kind]()
    assert "rescale" in error_of(data)


@pytest.mark.parametrize(
    "make", [lambda a: tiff_bytes(a, photometric="minisblack"), png_16_bit_rgb]
)
def test_13_bits_are_enough(make):
    values = np.full((40, 40), 4096, np.uint16)
    assert (decode_image(make(values), name="a") == 16).all()


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.int16, np.float16])
def test_other_tiff_samples_are_refused(dtype):
    data = tiff_bytes(np.ones((40, 40), dtype), photometric="minisblack")
    assert "8 or 16 bits" in error_of(data)


def test_tiff_with_several_images_is_refused():
    data = tiff_bytes(np.stack([smear(seed=s) for s in range(3)]), photometric="rgb")
    assert "3 full-size images" in error_of(data)


@pytest.mark.parametrize("thumbnail_first", [False, True])
def test_reduced_images_beside_the_full_one_are_passed_over(thumbnail_first):
    file = io.BytesIO()
    pages = [(smear(), 0), (smear()[::2, ::2], 1)]
    with tifffile.TiffWriter(file) as writer:
        for pixels, subfile in reversed(pages) if thumbnail_first else pages:
            writer.write(pixels, photometric="rgb", subfiletype=subfile, metadata=None)
    np.testing.assert_array_equal(decode_image(file.getvalue(), name="a"), smear())


def test_endless_chain_of_tiff_pages_is_refused():
    data = bytearray(tiff_bytes(smear(), photometric="rgb", metadata=None))
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    struct.pack_into(
        "<I", data, directory + 2 + 12 * count, directory
    )  # the next page is this page
    assert "full-size images" in error_of(bytes(data))


def test_tiff_with_jpeg_inside_is_refused():
    assert "compression JPEG" in error_of(pillow_bytes(smear(), "TIFF", compression="jpeg"))


def test_tiff_whose_strips_are_missing_is_refused():
    data = tiff_bytes(smear(), photometric="rgb", rowsperstrip=16)
    counts = (16 * 64 * 3,) * 3
    assert "pixel data are missing" in error_of(
        retag(data, StripByteCounts=(counts[0], 0, counts[2]))
    )
    assert "pixel data are missing" in error_of(retag(data, StripOffsets=(8, 10**6, 8)))


def test_deflate_bomb_in_a_tiff_is_not_unpacked():
    plain = tiff_bytes(smear(), photometric="rgb", compression="zlib")
    bomb = zlib.compress(bytes(64 * 2**20), 1)
    data = retag(plain + bomb, StripOffsets=len(plain), StripByteCounts=len(bomb))
    tracemalloc.start()
    try:
        decode_image(data, name="a")
    except ImageError:
        pass
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 8 * 2**20


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
        (b"<svg></svg>", "no JPEG"),
        (b"GIF89a", "no JPEG"),
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
from rbc_engine.sources.decode import read_image
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        read_image(path, name=path.name)
    except ImageError:
        continue
    sys.exit(f"{path} was read")
"""
    ran = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


@pytest.mark.real
def test_real_smears_are_pillows_to_the_bit():
    data = Path(os.environ.get("RBC_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    paths = sorted(data.glob("chula12/images/*.jpg"))[:20] + sorted(data.glob("slides/*/*.jpg"))[:2]
    if not paths:
        pytest.skip(f"no real smears under {data}; set RBC_DATA")
    for path in paths:
        expected = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(read_image(path, name=path.name), expected)
