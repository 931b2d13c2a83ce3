"""Reading images: pixels against Pillow and tifffile."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from rbc_engine.errors import ImageError
from rbc_engine.sources.images.decode import decode_image, read_image

from .image_files import error_of, pillow_bytes, png_bytes, retag, smear, tiff_bytes


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


def test_16_bit_colour_png():
    decoded = decode_image(png_16_bit_rgb(ALL_16_BIT), name="a")
    np.testing.assert_array_equal(decoded, SCALED_RGB)


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


@pytest.mark.real
def test_real_smears_are_pillows_to_the_bit():
    data = Path(os.environ.get("RBC_DATA", Path(__file__).parents[4].parent / "shared" / "data"))
    paths = sorted(data.glob("chula12/images/*.jpg"))[:20] + sorted(data.glob("slides/*/*.jpg"))[:2]
    if not paths:
        pytest.skip(f"no real smears under {data}; set RBC_DATA")
    for path in paths:
        expected = np.asarray(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(read_image(path, name=path.name), expected)
