"""Whole slides run: tiled, with background left out, whole and damaged, in bounded memory."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg
import tifffile
from PIL import Image

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.devices.choose import open_device
from rbc_engine.engine import Engine
from rbc_engine.lanes.tiles import plan_tiles
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.runs.whole_slides import WholeSlides
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.sources.slides.tile_reader import (
    SlideEnd,
    SlideSource,
    SlideStart,
    TileRead,
    shows_only_background,
)
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import CanvasFit, Frame, SlideRef

from ....boxes import ious
from .slide_files import UM, write_pyramid, write_svs


@pytest.fixture(scope="module")
def field():
    """As large as a few tiles, with touching cells."""
    return render_field(seed=11, width=1700, height=1250, cells=330, cell_px=7.6 / UM, touching=0.4)


@pytest.fixture(scope="module")
def smear(field):
    return field.pixels


@pytest.fixture(scope="module")
def engine():
    # Each tile is a field of its own, and so has its own mix of types.
    with Engine.open(device="cpu", precision="fp32", field_prior=False) as engine:
        yield engine


def ref(path):
    return SlideRef(slide=path.name, field=path.name, path=path)


def run_slides(engine, *paths, um=None, **options):
    slides = WholeSlides(engine)
    with SlideSource(
        [ref(path) for path in paths],
        settings=engine.pack.manifest.detector,
        pixel_um=um,
        workers=2,
        ahead=6,
        **options,
    ) as source:
        return list(slides.results(source)), slides


@pytest.fixture(scope="module")
def frame_engine():
    """Give a frame of several tiles as many proposals as the tiles have together.

    Otherwise the detector's fixed-size output, not the tiling, would make the difference.
    """
    pack = Pack.open(find_pack("chula12"))
    detector = pack.manifest.detector.model_copy(
        update={"proposals_per_level": 3840, "proposals": 4000}
    )
    pack = dataclasses.replace(
        pack, manifest=pack.manifest.model_copy(update={"detector": detector})
    )
    with Engine.on(
        pack, open_device("cpu", precision="fp32", lanes=1), field_prior=False
    ) as engine:
        yield engine


@pytest.mark.slow
def test_a_slide_tiled_any_way_equals_the_same_pixels_as_one_frame(
    engine, frame_engine, field, smear, tmp_path
):
    path = write_pyramid(tmp_path / "s.tif", smear)
    detector = engine.pack.manifest.detector
    plan = plan_tiles(smear.shape[:2], pixel_um=UM, settings=detector)
    resized = tuple(int(side * plan.canvas_scale + 1e-6) for side in smear.shape[:2])
    canvas = tuple(-(-side // 32) * 32 for side in resized)
    fit = CanvasFit(resized_hw=resized, canvas_hw=canvas, scale=plan.canvas_scale)
    whole = frame_engine.analyze(Frame(pixels=smear, canvas=fit)).regions
    assert len(whole) > 200
    for tile, overlap in ((640, 128), (384, 128), (640, 256)):
        (result,), slides = run_slides(engine, path, tile_canvas_px=tile, overlap_canvas_px=overlap)
        assert (result.width, result.height) == (1700, 1250)
        assert slides.records[0]["um_per_px"] == pytest.approx(UM)
        assert result.tiles.run == slides.records[0]["tiles"]["run"] > 1
        tiled = result.regions
        # Where there can be no doubt what a region is: single cells, none doubled, none lost.
        single = field.boxes[field.cell_counts == 1]
        hits = [(ious(single, found.boxes) > 0.5).sum(axis=1) for found in (whole, tiled)]
        np.testing.assert_array_equal(hits[0] > 0, hits[1] > 0)
        # The detector finds one in two hundred twice, tiled or not; a seam would double dozens.
        assert max((hit > 1).sum() for hit in hits) <= 1
        assert hits[1].mean() > 0.97
        for some, others in ((whole, tiled), (tiled, whole)):
            iou = ious(some.boxes, others.boxes)
            best, match = iou.max(axis=1), iou.argmax(axis=1)
            sure = some.scores > 0.75
            assert sure.mean() > 0.9
            # Clumps are cut up one way or the other where the detector is in doubt.
            assert (best[sure] > 0.75).mean() > 0.99
            assert (best[sure] > 0.9).mean() > 0.96
            same = sure & (best > 0.75)
            assert len(set(match[same].tolist())) == same.sum()
            assert (some.has == others.has[match]).all(axis=1)[same].mean() > 0.95


def steps_of(path, detector, um=None):
    with SlideSource([ref(path)], settings=detector, pixel_um=um, workers=2, ahead=4) as source:
        return list(source)


def test_a_damaged_tile_fails_the_slide_and_says_where(noise, tmp_path):
    path = write_pyramid(tmp_path / "s.tif", np.tile(noise, (3, 3, 1)), levels=1)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[-1]
    data = bytearray(path.read_bytes())
    data[offset : offset + 200] = bytes(200)
    path.write_bytes(data)
    with stub_engine() as engine:
        (result,), slides = run_slides(engine, path)
    assert result.regions is None
    assert result.error.startswith("s.tif: at x ")
    assert "damaged" in result.error
    assert "tiles" not in slides.records[0]


@pytest.mark.parametrize("um", [1e-5, 352.8, None])
def test_absurd_um_per_px_are_ignored_and_said(noise, tmp_path, um):
    path = write_pyramid(tmp_path / "s.tif", noise, um=um)
    detector = Pack.open(find_pack("chula12")).manifest.detector
    start, *_, end = steps_of(path, detector)
    assert isinstance(start, SlideStart)
    assert end.error is None
    assert start.record["um_per_px_from"] == "assumed"
    assert start.record["canvas_px_per_px"] == pytest.approx(320 / 480, rel=0.01)
    assert any("640x480" in note for note in start.notes)
    assert any("no microscope has" in note for note in start.notes) == (um is not None)
    start, *_ = steps_of(path, detector, um=0.3)
    assert start.record["um_per_px_from"] == "given"
    refused = steps_of(path, detector, um=9.0)
    assert len(refused) == 1
    assert isinstance(refused[0], SlideEnd)
    assert "--um-per-px" in refused[0].error


def test_background_is_left_out_and_no_cell_ever_is(tmp_path):
    rng = np.random.default_rng(5)
    detector = Pack.open(find_pack("chula12")).manifest.detector
    background = np.clip(rng.normal(215, 3, (1800, 2400, 3)), 0, 255).astype(np.uint8)
    for levels in (1, 3):
        path = write_pyramid(
            tmp_path / f"blank{levels}.tif", background, levels=levels, compression=None
        )
        with stub_engine() as engine:
            (result,), slides = run_slides(engine, path)
        assert result.tiles.run == 0
        assert result.tiles.blank >= 9
        assert len(result.regions) == 0
        assert any("only background" in note for note in slides.notes)
    # One pale cell, as small as the smallest that the pack looks for, anywhere.
    yy, xx = np.mgrid[:1800, :2400]
    for _ in range(6):
        x, y = rng.uniform(20, 2380), rng.uniform(20, 1780)
        one = background.copy()
        inside = (xx - x) ** 2 + (yy - y) ** 2 < (16 / 2 / 0.868) ** 2
        one[inside, 1] -= 22
        path = write_pyramid(tmp_path / "one.tif", one, compression=None)
        read = [step for step in steps_of(path, detector) if isinstance(step, TileRead)]
        around = []
        for step in read:
            x0, y0, x1, y1 = step.tile.box
            if x0 + 5 <= x <= x1 - 5 and y0 + 5 <= y <= y1 - 5:
                around.append(step)
        assert around
        assert all(step.frame is not None for step in around)
        assert sum(step.frame is None for step in read) >= len(read) - 4


@pytest.mark.real
def test_no_labelled_cell_of_the_real_smears_is_taken_for_background(real_data):
    checked = 0
    for path in sorted((real_data / "chula12" / "images").iterdir())[::20]:
        labels = real_data / "chula12" / "labels" / f"{path.stem}.txt"
        if not labels.exists():
            continue
        pixels = decode_image(path.read_bytes(), name=path.name)
        for line in labels.read_text().splitlines():
            x, y = (int(float(text)) for text in line.split()[:2])
            part = pixels[max(y - 55, 0) : y + 55, max(x - 55, 0) : x + 55]
            assert not shows_only_background(part, 6.0), (path.name, x, y)
            checked += 1
    assert checked > 300


def test_a_run_of_slides_fields_and_broken_files(smear, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_svs(folder / "a.svs", smear[:700, :900])
    write_pyramid(folder / "<script>'b'\n.tif", smear[:700, :900], um=None)
    (folder / "cut.svs").write_bytes((folder / "a.svs").read_bytes()[:30_000])
    Image.fromarray(smear[:480, :640]).save(folder / "field.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rbc_engine", "run", str(folder), "--out", str(out)]
    done = subprocess.run(
        [*command, "--formats", "overlay"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 3, done.stderr
    with (out / "fields.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["field"]: row for row in csv.DictReader(file)}
    odd = "<script>'b'\\n.tif"
    assert set(rows) == {"a.svs", odd, "cut.svs", "field.png"}
    assert rows["cut.svs"]["status"] == "failed"
    assert rows["a.svs"]["slide"] == "a.svs"
    assert (rows["a.svs"]["width"], rows["a.svs"]["height"]) == ("900", "700")
    assert int(rows["a.svs"]["regions"]) > 40
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert [record["field"] for record in run["whole_slides"]] == [odd, "a.svs"]
    assert run["whole_slides"][1]["um_per_px"] == UM
    assert run["counts"] | {"abnormal": 0, "regions": 0} == {
        **{"slides": 4, "fields": 4, "failed": 1, "regions": 0, "abnormal": 0}
    }
    assert any("640x480" in line and odd in line for line in run["warnings"])
    assert any("no overlay" in line for line in run["warnings"])
    boxes = pq.read_table(out / "regions.parquet", filters=[("field", "=", "a.svs")])
    assert boxes.num_rows == int(rows["a.svs"]["regions"])
    assert max(boxes["x1"].to_pylist()) > 640


_HUGE_RUN = """
import sys, time
from pathlib import Path
from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.sources.slides.tile_reader import SlideSource
from rbc_engine.types.frames import SlideRef
from rbc_engine.runs.whole_slides import WholeSlides

ref = SlideRef(slide="s", field="s", path=Path(sys.argv[1]))
with stub_engine(regions=60) as engine:
    source = SlideSource(
        [ref], settings=engine.pack.manifest.detector, pixel_um=None, workers=2, ahead=16
    )
    started = time.perf_counter()
    with source:
        (result,) = WholeSlides(engine).results(source)
    seconds = time.perf_counter() - started
assert result.ok, result.error
# Not ru_maxrss, which a process inherits from the one that started it.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(result.tiles.run, result.tiles.blank, len(result.regions), peak, seconds)
"""


@pytest.mark.slow
def test_memory_of_a_slide_of_40000_by_30000_px_is_bounded(smear, tmp_path):
    """Reading, tiling and merging; the engine's lanes are stubs with 60 regions a tile."""
    path = tmp_path / "huge.tif"
    side, width, height = 512, 40_000, 30_000
    kinds = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(smear[y : y + side, x : x + side]), 90)
        for y in range(0, 700, 350)
        for x in range(0, 1100, 370)
    ]
    settings = {"photometric": "ycbcr", "compression": "jpeg", "metadata": None}
    resolution = {"resolution": (1e4 / UM, 1e4 / UM), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for down in (1, 4, 16):
            shape = (height // down, width // down, 3)
            count = -(-shape[0] // side) * -(-shape[1] // side)
            tiff.write(
                (kinds[index % len(kinds)] for index in range(count)),
                shape=shape,
                dtype=np.uint8,
                tile=(side, side),
                subfiletype=int(down > 1),
                subsampling=(2, 2),
                **(resolution if down == 1 else {}),
                **settings,
            )
    done = subprocess.run(
        [sys.executable, "-c", _HUGE_RUN, str(path)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    run, blank, regions, peak_kib, _ = map(float, done.stdout.split())
    assert run + blank > 2500
    assert run > 2000
    assert regions > 60_000
    assert peak_kib < 2**20
