"""Vendors' slides: SVS, NDPI and MRXS files made here, whole and damaged, read by OpenSlide."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys

import numpy as np
import openslide
import pyarrow.parquet as pq
import pytest
import tifffile

from rbc_engine.errors import ImageError
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.slides.base import Box
from rbc_engine.sources.slides.open import open_slide
from rbc_engine.sources.slides.tile_reader import SlideEnd, SlideSource, SlideStart, TileRead
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import SlideRef

from .slide_files import UM, reduced, write_mrxs, write_ndpi, write_pyramid, write_svs


@pytest.fixture(scope="module")
def smear():
    return render_field(
        seed=11, width=1200, height=1000, cells=170, cell_px=7.6 / UM, touching=0.3
    ).pixels


def read_whole(slide, level=0):
    size = slide.levels[level]
    return slide.read(level, Box(0, 0, size.width, size.height))


def test_a_vendor_slide_is_read_by_openslide(smear, tmp_path):
    path = write_svs(tmp_path / "a.svs", smear)
    slide = open_slide(path, name="a.svs")
    assert "OpenSlide" in slide.reader
    assert "aperio" in slide.reader
    assert slide.scale.pixel_um == UM
    assert [round(level.down) for level in slide.levels] == [1, 4]
    pixels, all_there = slide.read(0, Box(300, 200, 900, 800))
    assert all_there
    reference = tifffile.imread(path, key=0)[200:800, 300:900]
    assert np.abs(pixels.astype(int) - reference).max() <= 4  # two JPEG decoders
    slide.close()


def test_openslide_missing_names_the_extra(smear, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    path = write_svs(tmp_path / "a.svs", smear[:300, :300])
    with pytest.raises(ImageError, match=r"rbc-engine\[slides\]"):
        open_slide(path, name="a.svs")


@pytest.mark.parametrize("um", [0.2275, 0.4584])
def test_an_ndpi_is_read_as_its_jpegs_are(smear, tmp_path, um):
    path = tmp_path / "a.ndpi"
    truth = write_ndpi(path, smear, um=um)
    slide = open_slide(path, name="a.ndpi")
    assert "OpenSlide" in slide.reader
    assert "hamamatsu" in slide.reader
    assert slide.scale.pixel_um == pytest.approx(um, rel=1e-4)
    assert slide.notes == []
    # The levels of the file, and those between them that a JPEG gives by itself.
    assert [round(level.down) for level in slide.levels] == [1, 2, 4, 8, 16, 32]
    pixels, all_there = read_whole(slide)
    assert all_there
    assert np.abs(pixels.astype(int) - truth).max() <= 2  # two JPEG decoders
    for box in (Box(1, 3, 500, 131), Box(127, 7, 129, 9), Box(700, 500, 1024, 960)):
        pixels, _ = slide.read(0, box)
        expected = truth[box.y0 : box.y1, box.x0 : box.x1]
        assert np.abs(pixels.astype(int) - expected).max() <= 2
    for number, level in enumerate(slide.levels[1:4], 1):
        pixels, _ = read_whole(slide, number)
        assert np.abs(pixels - reduced(truth, round(level.down)).astype(float)).mean() < 2
    slide.close()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_an_mrxs_is_put_together_from_its_photographs(smear, tmp_path, image_format):
    path = tmp_path / "a.mrxs"
    truth = write_mrxs(path, smear, um=0.2325, image_format=image_format)
    slide = open_slide(path, name="a.mrxs")
    assert "mirax" in slide.reader
    assert slide.scale.pixel_um == pytest.approx(0.2325)
    assert slide.notes == []
    assert [level.down for level in slide.levels] == [1, 2, 4]
    assert (slide.levels[0].height, slide.levels[0].width) == truth.shape[:2]
    for number, down in enumerate((1, 2, 4)):
        pixels, all_there = read_whole(slide, number)
        assert all_there
        error = np.abs(pixels.astype(int) - reduced(truth, down))
        assert error.max() == 0 if image_format == "PNG" else error.mean() < 2
    pixels, _ = slide.read(0, Box(250, 190, 700, 641))
    error = np.abs(pixels.astype(int) - truth[190:641, 250:700])
    assert error.max() == 0 if image_format == "PNG" else error.mean() < 2
    slide.close()


def test_what_an_mrxs_has_no_photograph_of_is_background(smear, tmp_path):
    path = tmp_path / "a.mrxs"
    truth = write_mrxs(path, smear, missing={(1, 1)})
    slide = open_slide(path, name="a.mrxs")
    # Well inside the photograph, which its neighbours overlap.
    pixels, all_there = slide.read(0, Box(300, 300, 400, 400))
    assert not all_there
    assert (pixels == (0xF0, 0xEB, 0xE6)).all()
    pixels, all_there = slide.read(0, Box(0, 0, 200, 200))
    assert all_there
    np.testing.assert_array_equal(pixels, truth[:200, :200])
    slide.close()


def test_coordinates_count_from_where_the_scanned_part_begins(smear, tmp_path):
    """QuPath shows openslide.bounds alone, and its GeoJSON counts from there."""
    path = tmp_path / "a.mrxs"
    rows, columns = 4, 4
    truth = write_mrxs(path, smear, missing={(0, c) for c in range(9)} | {(r, 0) for r in range(9)})
    with openslide.OpenSlide(path) as raw:
        names = ("x", "y", "width", "height")
        x, y, width, height = (int(raw.properties[f"openslide.bounds-{n}"]) for n in names)
    assert min(x, y) > 100, (rows, columns)
    slide = open_slide(path, name="a.mrxs")
    assert slide.origin == (x, y)
    assert (slide.levels[0].width, slide.levels[0].height) == (width, height)
    pixels, all_there = slide.read(0, Box(100, 60, 400, 300))
    assert all_there
    np.testing.assert_array_equal(pixels, truth[y + 60 : y + 300, x + 100 : x + 400])
    half, _ = slide.read(1, Box(50, 30, 200, 150))
    expected = truth[y + 60 : y + 300, x + 100 : x + 400]
    assert np.abs(half - reduced(expected, 2).astype(float)).mean() < 12
    slide.close()
    start = steps_of(path)[0]
    assert start.record["origin"] == [x, y]
    assert any(f"x {x}, y {y} of the file is 0, 0 here" in note for note in start.notes)


@pytest.mark.parametrize(("power", "um"), [("20", 0.5), ("40", 0.25), (None, None)])
def test_the_power_of_the_objective_gives_the_scale_where_the_file_has_no_other(
    smear, tmp_path, power, um
):
    path = write_svs(tmp_path / "a.svs", smear[:600, :600])
    data = path.read_bytes()
    stated = f"MPP = {UM}".encode()
    assert stated in data
    data = data.replace(stated, b"XYZ" + stated[3:])
    found = re.search(rb"AppMag = \d+", data)
    assert found is not None
    named = b"AppMag = " + power.encode() if power else b"Nothing = 1"
    path.write_bytes(data.replace(found[0], named.ljust(len(found[0]))))
    start = steps_of(path)[0]
    assert start.record["um_per_px"] == um
    assert start.record["um_per_px_from"] == ("stated" if power else "assumed")
    assert start.record["um_per_px_by"] == (f"objective power {power}" if power else None)
    assert any("objective power" in note for note in start.notes) == (power is not None)


def steps_of(path):
    detector = Pack.open(find_pack("chula12")).manifest.detector
    ref = SlideRef(slide=path.name, field=path.name, path=path)
    with SlideSource([ref], settings=detector, pixel_um=None, workers=2, ahead=4) as source:
        return list(source)


@pytest.mark.parametrize("write", [write_ndpi, write_mrxs])
def test_the_engine_gets_the_tiles_that_it_gets_of_a_generic_pyramid(smear, tmp_path, write):
    path = tmp_path / f"a.{write.__name__.removeprefix('write_')}"
    truth = write(path, smear)
    ours, theirs = steps_of(path), steps_of(write_pyramid(tmp_path / "a.tif", truth))
    assert [type(step) for step in ours] == [type(step) for step in theirs]
    assert isinstance(ours[0], SlideStart)
    assert ours[0].plan == theirs[0].plan
    assert ours[0].record["um_per_px_from"] == "stated"
    tiles = 0
    for mine, its in zip(ours, theirs, strict=True):
        if isinstance(mine, TileRead):
            assert mine.tile == its.tile
            assert mine.frame.canvas == its.frame.canvas
            assert np.abs(mine.frame.pixels.astype(int) - its.frame.pixels).max() <= 2
            tiles += 1
    assert tiles >= 4


def test_ndpi_and_mrxs_give_the_regions_of_a_generic_pyramid(smear, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    # PNG in the MIRAX slide and deflate in the TIFF: exactly what the JPEG of the NDPI holds.
    truth = write_ndpi(folder / "a.ndpi", smear)
    shown = write_mrxs(folder / "b.mrxs", truth)
    write_pyramid(folder / "a.tif", truth)
    write_pyramid(folder / "b.tif", shown)
    assert {type(entry) for entry in find_fields([folder]).entries} == {SlideRef}
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rbc_engine", "run", str(folder), "--out", str(out)]
    done = subprocess.run(
        [*command, "--formats", "only"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    with (out / "fields.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["field"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"a.ndpi", "a.tif", "b.mrxs", "b.tif"}
    table = pq.read_table(out / "regions.parquet").to_pandas()
    for vendor, generic in (("a.ndpi", "a.tif"), ("b.mrxs", "b.tif")):
        assert rows[vendor]["width"] == rows[generic]["width"]
        mine, its = (
            table[table.field == name].drop(columns=["slide", "field"]).reset_index(drop=True)
            for name in (vendor, generic)
        )
        assert len(mine) > 70
        assert len(mine) == len(its)
        # Equal tiles, that is; but in other batches, where the last bits of a sum may differ.
        boxes = ["x0", "y0", "x1", "y1"]
        mine, its = (part.sort_values(boxes, ignore_index=True) for part in (mine, its))
        np.testing.assert_allclose(mine[boxes], its[boxes], atol=0.1)
        chances = [name for name in mine if name.startswith("p_")]
        np.testing.assert_allclose(mine[chances], its[chances], atol=0.02)
        assert (mine.abnormal == its.abnormal).mean() > 0.98


def test_damaged_vendor_slides_are_refused_whole(smear, tmp_path):
    write_ndpi(tmp_path / "good.ndpi", smear)
    good = (tmp_path / "good.ndpi").read_bytes()
    (tmp_path / "cut.ndpi").write_bytes(good[: len(good) // 2])
    write_mrxs(tmp_path / "alone.mrxs", smear)
    shutil.rmtree(tmp_path / "alone")
    write_mrxs(tmp_path / "index.mrxs", smear)
    index = tmp_path / "index" / "Index.dat"
    index.write_bytes(index.read_bytes()[:200])
    for name in ("cut.ndpi", "alone.mrxs", "index.mrxs"):
        [end] = steps_of(tmp_path / name)
        assert isinstance(end, SlideEnd)
        assert end.error.startswith(f"{name}: ")
        assert "\n" not in end.error
    write_mrxs(tmp_path / "data.mrxs", smear)
    data = tmp_path / "data" / "Data0000.dat"
    data.write_bytes(data.read_bytes()[:300_000])
    error = next(
        step.error
        for step in steps_of(tmp_path / "data.mrxs")
        if hasattr(step, "error") and step.error
    )
    assert error.startswith("data.mrxs: ")
    assert "damaged" in error


def test_parts_too_large_to_unpack_are_refused(tmp_path):
    white = np.full((4096, 5120, 3), 240, np.uint8)
    write_ndpi(tmp_path / "a.ndpi", white, restarts=False)
    with pytest.raises(ImageError, match="parts of 5120x4096 px"):
        open_slide(tmp_path / "a.ndpi", name="a.ndpi")
    write_ndpi(tmp_path / "b.ndpi", white)  # as large, in small tiles
    open_slide(tmp_path / "b.ndpi", name="b.ndpi").close()
    write_mrxs(tmp_path / "c.mrxs", white[:600, :600])
    settings = tmp_path / "c" / "Slidedat.ini"
    text = settings.read_text()
    settings.write_text(text.replace("DIGITIZER_WIDTH = 128", "DIGITIZER_WIDTH = 200000"))
    with pytest.raises(ImageError, match="parts of 200000x128 px"):
        open_slide(tmp_path / "c.mrxs", name="c.mrxs")
