"""Whole slides: opened, read and run; generic, OME and vendor files made here, whole and damaged."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from rbc_engine.bench.stub_engine import stub_engine
from rbc_engine.engine import Engine
from rbc_engine.errors import ImageError
from rbc_engine.scale import CanvasFit
from rbc_engine.sources.folder import find_fields
from rbc_engine.sources.slide import Box, is_whole_slide, open_slide
from rbc_engine.sources.slide_tiles import (
    SlideEnd,
    SlideSource,
    SlideStart,
    TileRead,
    shows_only_background,
)
from rbc_engine.sources.synthetic import render_field
from rbc_engine.tiles import plan_tiles
from rbc_engine.types import FieldRef, Frame, SlideRef
from rbc_engine.whole_slides import WholeSlides

UM = 0.25
APERIO = "Aperio Image Library v11\n{w}x{h} [0,0 {w}x{h}] (256x256) JPEG/RGB Q=90|AppMag = 40|MPP = {um}"


def write_pyramid(path, pixels, *, um=UM, levels=3, subifds=True, compression="deflate", **options):
    """A generic TIFF pyramid, tiled, each level half as large as the one before."""
    settings = {
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": compression,
        "metadata": None,
        **options,
    }
    resolution = {}
    if um is not None:
        resolution = {"resolution": (1e4 / um, 1e4 / um), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(pixels, subifds=levels - 1 if subifds else 0, **resolution, **settings)
        for level in range(1, levels):
            tiff.write(reduced(pixels, 2**level), subfiletype=1, **settings)
    return path


def write_svs(path, pixels, *, um=UM):
    height, width = pixels.shape[:2]
    text = APERIO.format(w=width, h=height, um=um)
    settings = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, tile=(256, 256), description=text, **settings)
        tiff.write(reduced(pixels, 8), rowsperstrip=16, description="Aperio thumbnail", **settings)
        tiff.write(reduced(pixels, 4), tile=(256, 256), description=text, **settings)
    return path


def reduced(pixels, by):
    height, width = (side // by * by for side in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // by, by, width // by, by, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


@pytest.fixture(scope="module")
def smear():
    """A field as large as a few tiles, with touching cells."""
    return render_field(
        seed=11, width=1700, height=1250, cells=330, cell_px=7.6 / UM, touching=0.4
    ).pixels


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(3).integers(0, 256, (700, 900, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def engine():
    with Engine.open(device="cpu", precision="fp32") as engine:
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


def matches(regions, others):
    """For each region, IoU with the best of the others, and that one's index."""
    low = np.maximum(regions.boxes[:, None, :2], others.boxes[None, :, :2])
    high = np.minimum(regions.boxes[:, None, 2:], others.boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(r.boxes[:, 2:] - r.boxes[:, :2]).prod(axis=1) for r in (regions, others)]
    iou = shared / (areas[0][:, None] + areas[1][None] - shared)
    return iou.max(axis=1), iou.argmax(axis=1)


@pytest.mark.slow
def test_a_slide_tiled_any_way_equals_the_same_pixels_as_one_frame(engine, smear, tmp_path):
    path = write_pyramid(tmp_path / "s.tif", smear)
    detector = engine.pack.manifest.detector
    plan = plan_tiles(smear.shape[:2], pixel_um=UM, settings=detector)
    resized = tuple(int(side * plan.canvas_scale + 1e-6) for side in smear.shape[:2])
    fit = CanvasFit(
        resized_hw=resized,
        canvas_hw=tuple(-(-side // 32) * 32 for side in resized),
        scale=plan.canvas_scale,
    )
    whole = engine.analyze(Frame(pixels=smear, canvas=fit)).regions
    assert len(whole) > 150
    threshold = detector.score_threshold
    for tile, overlap in ((640, 128), (384, 128), (512, 256)):
        results, slides = run_slides(
            engine, path, tile_canvas_px=tile, overlap_canvas_px=overlap
        )
        (result,) = results
        assert (result.width, result.height) == (1700, 1250)
        assert slides.records[0]["um_per_px"] == pytest.approx(UM)
        assert result.tiles.run > 1
        tiled = result.regions
        for some, others in ((whole, tiled), (tiled, whole)):
            best, match = matches(some, others)
            # The detector is unsure of the rest: it found them with a score near its threshold.
            sure = some.scores > threshold + 0.1
            assert (best[sure] > 0.9).all(), (tile, some.boxes[sure][best[sure] <= 0.9])
            assert sure.mean() > 0.9
            assert len(set(match[sure])) == sure.sum()  # none doubled
            difference = np.abs(some.probabilities - others.probabilities[match])[sure]
            assert np.median(difference.max(axis=1)) < 0.02
            agree = (some.has == others.has[match]).all(axis=1)[sure]
            assert agree.mean() > 0.95
            assert np.abs(some.scores - others.scores[match])[sure].max() < 0.1
