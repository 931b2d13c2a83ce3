"""TIFFs of several pages: channels, planes, thumbnails told apart; JPEG in TIFF."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.sources.slides.base import Box
from rbc_engine.sources.slides.open import open_slide
from rbc_engine.types.frames import SlideRef

from .image_files import error_of, pillow_bytes, smear, tiff_bytes

PLANES = np.moveaxis(smear(), 2, 0)
NAMES = ["Red", "Green", "Blue"]


def pages(*images: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for image in images:
            photometric = "rgb" if image.ndim == 3 else "minisblack"
            writer.write(image, photometric=photometric, metadata=None, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "metadata",
    [
        {"axes": "CYX"},
        {"axes": "CYX", "Channel": {"Name": NAMES}},
        {"axes": "CYX", "Channel": {"Name": ["Channel 0", "Channel 1", "Channel 2"]}},
        {"axes": "CYX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm"},
    ],
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_three_channels_of_ome_are_one_picture(metadata, compression):
    data = tiff_bytes(PLANES, ome=True, metadata=metadata, compression=compression)
    np.testing.assert_array_equal(decode_image(data, name="a"), smear())


def test_channels_come_in_the_order_of_their_names_or_colours():
    named = {"axes": "CYX", "Channel": {"Name": ["blue", "R", "Green"]}}
    mixed = PLANES[[2, 0, 1]]
    data = tiff_bytes(mixed, ome=True, metadata=named)
    np.testing.assert_array_equal(decode_image(data, name="a"), smear())
    blue, red, green = 0x0000FFFF, 0xFF0000FF - 2**32, 0x00FF00FF
    coloured = {"axes": "CYX", "Channel": {"Color": [blue, red, green]}}
    data = tiff_bytes(mixed, ome=True, metadata=coloured)
    np.testing.assert_array_equal(decode_image(data, name="a"), smear())


def test_three_channels_of_imagej_are_one_picture():
    data = tiff_bytes(PLANES, imagej=True, metadata={"axes": "CYX", "mode": "composite"})
    np.testing.assert_array_equal(decode_image(data, name="a"), smear())
    ramp = np.arange(256, dtype=np.uint8)
    luts = [np.stack([ramp if c == k else 0 * ramp for c in range(3)]) for k in (2, 1, 0)]
    mixed = tiff_bytes(PLANES[::-1].copy(), imagej=True, metadata={"axes": "CYX", "LUTs": luts})
    np.testing.assert_array_equal(decode_image(mixed, name="a"), smear())


def test_deep_channels_are_scaled_together():
    deep = PLANES.astype(np.uint16) * 16
    data = tiff_bytes(deep, ome=True, metadata={"axes": "CYX", "SignificantBits": 12})
    assert np.abs(decode_image(data, name="a").astype(int) - smear()).max() <= 1


STACKS = [
    ("ZYX", 5, "5 focal planes"),
    ("TYX", 4, "4 time points"),
    ("CYX", 2, "2 channels"),
    ("CYX", 4, "4 channels"),
]


@pytest.mark.parametrize(("axes", "count", "expected"), STACKS)
@pytest.mark.parametrize("program", ["ome", "imagej"])
def test_what_is_not_one_picture_is_refused_by_what_it_is(axes, count, expected, program):
    stack = np.stack([smear(seed=seed)[..., 0] for seed in range(count)])
    message = error_of(tiff_bytes(stack, metadata={"axes": axes}, **{program: True}))
    assert expected in message
    assert "a file of its own" not in message, "that would count one field several times"


@pytest.mark.parametrize("program", ["ome", "imagej"])
def test_a_stack_in_colour_is_refused_as_a_stack(program):
    stack = np.stack([smear(seed=seed) for seed in range(3)])
    data = tiff_bytes(stack, photometric="rgb", metadata={"axes": "ZYXS"}, **{program: True})
    assert "3 focal planes" in error_of(data)


def test_a_large_stack_of_imagej_has_one_page_only():
    data = tiff_bytes(
        PLANES[0], metadata=None, description="ImageJ=1.54f\nimages=7\nslices=7\nloop=false\n"
    )
    assert "7 focal planes" in error_of(data)


def test_stained_channels_are_no_colours():
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "TRITC"]}}
    message = error_of(tiff_bytes(PLANES, ome=True, metadata=metadata))
    assert "DAPI, FITC, TRITC, not red, green and blue" in message


def test_pages_that_nothing_describes_are_refused_with_every_remedy():
    grey = error_of(pages(*PLANES))
    assert "holds 3 full-size images in grey" in grey
    assert "channels of one" in grey
    colour = error_of(pages(smear(), smear(seed=1)))
    assert "holds 2 full-size images in colour" in colour
    assert "channels" not in colour
    assert "64x48 and 60x44 px" in error_of(pages(smear(), smear(44, 60)))


@pytest.mark.parametrize("order", [1, -1])
def test_thumbnails_labels_and_masks_are_passed_over(order):
    for other in (smear()[::2, ::2].copy(), smear()[::4, ::3, 0].copy(), smear(20, 32)):
        data = pages(*(smear(), other)[::order])
        np.testing.assert_array_equal(decode_image(data, name="a"), smear())
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(smear(), photometric="rgb", metadata=None)
        writer.write(smear()[..., 0] > 9, photometric="minisblack", subfiletype=4, metadata=None)
    np.testing.assert_array_equal(decode_image(file.getvalue(), name="a"), smear())


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_in_a_tiff_is_pillows_to_the_bit(mode):
    image = Image.fromarray(smear(96, 128)).convert(mode)
    data = pillow_bytes(image, "TIFF", compression="jpeg", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, name="a"), expected)


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("options", [{"tile": (48, 64)}, {"rowsperstrip": 16}, {}])
def test_jpeg_in_tiles_and_strips_is_tifffiles(photometric, options):
    data = tiff_bytes(
        smear(100, 130), photometric="rgb" if photometric == "rgb" else None, compression="jpeg",
        compressionargs={"outcolorspace": photometric}, **options,
    )  # fmt: skip
    expected = tifffile.imread(io.BytesIO(data))
    np.testing.assert_array_equal(decode_image(data, name="a"), expected)


def test_a_damaged_jpeg_in_a_tiff_is_refused():
    data = tiff_bytes(smear(96, 128), photometric="rgb", compression="jpeg", rowsperstrip=96)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        (start,), (size,) = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    for at in (start + size // 2, start + 4, start + size - 40):
        damaged = data[:at] + bytes((0xFF, 0xD9)) + data[at + 2 :]
        assert "damaged" in error_of(damaged)


@pytest.mark.parametrize("tile", [(64, 64), None])
def test_three_channels_as_a_pyramid_are_one_slide(tmp_path, tile):
    path = tmp_path / "slide.ome.tif"
    large = smear(300, 8400)
    planes = np.moveaxis(large, 2, 0)
    with tifffile.TiffWriter(path, ome=True) as writer:
        metadata = {"axes": "CYX", "Channel": {"Name": NAMES}, "PhysicalSizeX": 0.25}
        metadata |= {"PhysicalSizeY": 0.25}
        options = {"compression": "zlib", "photometric": "minisblack", "tile": tile}
        writer.write(planes, subifds=1, metadata=metadata, **options)
        writer.write(planes[:, ::2, ::2], subfiletype=1, **options)
    (entry,) = find_fields([tmp_path]).entries
    assert isinstance(entry, SlideRef)
    slide = open_slide(path, name="a")
    try:
        assert [(level.width, level.height) for level in slide.levels] == [(8400, 300), (4200, 150)]
        assert slide.scale.pixel_um == pytest.approx(0.25)
        pixels, _ = slide.read(0, Box(10, 20, 400, 280))
        np.testing.assert_array_equal(pixels, large[20:280, 10:400])
        pixels, _ = slide.read(1, Box(5, 0, 205, 150))
        np.testing.assert_array_equal(pixels, large[::2, ::2][:, 5:205])
    finally:
        slide.close()
