"""Files of slides opened and read: generic and OME TIFFs made here, whole and damaged."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile

from rbc_engine.errors import ImageError
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.slides.base import Box
from rbc_engine.sources.slides.open import is_whole_slide, open_slide
from rbc_engine.types.frames import FieldRef, SlideRef

from .slide_files import UM, reduced, write_pyramid, write_svs


def test_every_level_of_every_format_is_read_as_it_was_written(noise, tmp_path):
    levels = [noise, reduced(noise, 2), reduced(noise, 4)]
    ome = tmp_path / "o.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm"}
    metadata |= {"PhysicalSizeY": 200.0, "PhysicalSizeYUnit": "nm"}
    with tifffile.TiffWriter(ome, bigtiff=True) as tiff:
        tiff.write(noise, tile=(128, 128), subifds=2, metadata=metadata, photometric="rgb")
        for level in levels[1:]:
            tiff.write(level, tile=(128, 128), subfiletype=1, photometric="rgb")
    pages = write_pyramid(tmp_path / "p.tif", noise, subifds=False, compression="lzw")
    planes = write_pyramid(
        tmp_path / "planes.tif", noise.transpose(2, 0, 1), levels=1, planarconfig="separate"
    )
    strips = write_pyramid(
        tmp_path / "strips.tif", noise, levels=1, tile=None, rowsperstrip=700, compression=None
    )
    packed = write_pyramid(tmp_path / "packed.tif", noise, levels=1, tile=None, rowsperstrip=50)
    rng = np.random.default_rng(0)
    for path, um, count in (
        (write_pyramid(tmp_path / "g.tif", noise), UM, 3),
        (ome, 0.2, 3),
        (pages, UM, 3),
        (planes, UM, 1),
        (strips, UM, 1),
        (packed, UM, 1),
    ):
        slide = open_slide(path, name=path.name)
        assert slide.scale.pixel_um == pytest.approx(um), path
        assert len(slide.levels) == count, (path, slide.notes)
        for number, level in enumerate(slide.levels):
            truth = levels[number]
            assert (level.height, level.width) == truth.shape[:2]
            for _ in range(8):
                x0, x1 = sorted(rng.choice(level.width + 1, 2, replace=False).tolist())
                y0, y1 = sorted(rng.choice(level.height + 1, 2, replace=False).tolist())
                pixels, all_there = slide.read(number, Box(x0, y0, x1, y1))
                np.testing.assert_array_equal(pixels, truth[y0:y1, x0:x1])
                assert all_there
        slide.close()


def test_what_is_a_slide_and_what_is_a_field(noise, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_pyramid(folder / "pyramid.tif", noise)
    write_pyramid(folder / "field.tif", noise, levels=1)
    with tifffile.TiffWriter(folder / "thumb.tif") as tiff:
        tiff.write(noise, photometric="rgb", metadata=None)
        tiff.write(noise[:60, :80], photometric="rgb", subfiletype=1, metadata=None)
    tifffile.imwrite(folder / "wide.tif", np.zeros((40, 9000, 3), np.uint8), photometric="rgb")
    write_svs(folder / "a.SVS", noise)
    (folder / "x.vms").write_text("[Virtual Microscope Specimen]\nImageFile=x(0,0).jpg\n")
    (folder / "x(0,0).jpg").write_bytes(b"")
    (folder / "broken.tif").write_bytes(b"II*\0")
    entries = find_fields([folder]).entries
    kinds = {entry.field: type(entry) for entry in entries}
    slides = {"pyramid.tif", "wide.tif", "a.SVS", "x.vms"}
    fields = {"field.tif", "thumb.tif", "broken.tif"}
    assert kinds == dict.fromkeys(slides, SlideRef) | dict.fromkeys(fields, FieldRef)
    assert {e.slide for e in entries} == slides | {"in"}
    assert not is_whole_slide(tmp_path / "missing.tif")


def set_tag(path, page, tag, value):
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[page].tags[tag].overwrite(value)


def test_damaged_slides_are_refused_whole(noise, tmp_path):
    good = write_pyramid(tmp_path / "good.tif", noise, levels=1).read_bytes()
    for name, data in {
        "cut.tif": good[: len(good) // 2],
        "empty.tif": b"",
        "text.svs": b"no slide",
        "empty.ndpi": b"",
        "cut.svs": write_svs(tmp_path / "whole.svs", noise).read_bytes()[:20_000],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError) as caught:
            open_slide(tmp_path / name, name=name)
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="not a regular file"):
        open_slide(tmp_path, name="folder")


def test_a_jpeg_larger_than_its_tile_is_not_unpacked(noise, tmp_path):
    path = write_pyramid(tmp_path / "s.tif", noise, levels=1, compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0", offset)
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(data)
    slide = open_slide(path, name="s.tif")
    with pytest.raises(ImageError, match="larger than its tile"):
        slide.read(0, Box(0, 0, 50, 50))
    slide.close()


def test_a_pyramid_with_a_missing_level_is_read_without_it(noise, tmp_path):
    path = write_pyramid(tmp_path / "s.tif", noise, subifds=False)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages[1].tags
        tags[324].overwrite([0] * len(tiff.pages[1].dataoffsets))  # TileOffsets
    slide = open_slide(path, name="s.tif")
    assert [round(level.down) for level in slide.levels] == [1, 4]
    assert any("level 1" in note and "missing" in note for note in slide.notes)
    np.testing.assert_array_equal(slide.read(0, Box(0, 0, 900, 700))[0], noise)
    slide.close()
    lost = write_pyramid(tmp_path / "lost.tif", noise)
    set_tag(lost, 0, 330, [2**40, 2**41])  # where the smaller levels should be
    assert is_whole_slide(lost)
    slide = open_slide(lost, name="lost.tif")
    assert len(slide.levels) == 1
    assert any("missing" in note for note in slide.notes)
    slide.close()


def test_strips_too_large_to_unpack_are_refused(tmp_path):
    path = tmp_path / "s.tif"
    pixels = np.full((3000, 9000, 3), 230, np.uint8)
    settings = {"photometric": "rgb", "metadata": None, "rowsperstrip": 3000}
    tifffile.imwrite(path, pixels, compression="deflate", **settings)
    assert is_whole_slide(path)
    with pytest.raises(ImageError, match="64 MiB"):
        open_slide(path, name="s.tif")
    tifffile.imwrite(path, pixels, **settings)  # as large, but its rows can be read one by one
    slide = open_slide(path, name="s.tif")
    assert (slide.read(0, Box(8000, 2000, 9000, 3000))[0] == 230).all()
    slide.close()
