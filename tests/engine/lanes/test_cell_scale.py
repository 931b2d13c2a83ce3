"""Fields at scales that the pack does not know, detected by the truth of rendered ones."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rbc_engine.engine import Engine
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.stages.cell_scale import CellScale
from rbc_engine.lanes.stages.detect import Detections
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sinks.formats.patch_pixels import cut_patches
from rbc_engine.sources.synthetic.field import SyntheticField, render_field
from rbc_engine.stats.match import match_boxes
from rbc_engine.types.frames import CanvasFit, Decoded, FieldRef, Frame

TRUE_UM = 7.6  # of the cells that render_field draws


def rbc(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rbc_engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def estimates_of(out: Path) -> dict[str, str]:
    with (out / "fields.csv").open(newline="", encoding="utf-8-sig") as file:
        return {
            row["field"]: row["um_per_px"] if row["um_per_px_from"] == "estimated" else ""
            for row in csv.DictReader(file)
        }


def field_of(cell_px: float, *, cells: int, seed: int = 3) -> SyntheticField:
    mix = {"oval_disc": 1.0}
    return render_field(
        seed=seed, width=640, height=480, cells=cells, cell_px=cell_px, touching=0.0, mix=mix
    )


@pytest.fixture(scope="module")
def estimating():
    with Engine.open("chula12", device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def fixed():
    with Engine.open("chula12", device="cpu", estimate_scale=False) as engine:
        yield engine


@pytest.mark.parametrize(("cell_px", "cells"), [(16.0, 200), (22.0, 150), (85.0, 14)])
def test_cells_of_impossible_size_are_detected_at_their_own(estimating, fixed, cell_px, cells):
    field = field_of(cell_px, cells=cells)
    result = estimating.analyze(field.pixels)
    assert result.um_per_px == pytest.approx(TRUE_UM / cell_px, rel=0.2)
    assert result.um_per_px_from == "estimated"
    _, found, _ = match_boxes(field.boxes, result.regions.boxes, least_iou=0.5)
    assert len(found) >= 0.95 * len(field.boxes)
    # As if the scale had been given; half a canvas px apart at most, because canvases differ a
    # little.
    given = fixed.analyze(field.pixels, pixel_um=result.um_per_px).regions
    pairs, _, _ = match_boxes(result.regions.boxes, given.boxes, least_iou=0.7)
    assert len(pairs) >= 0.95 * len(given)


def test_small_cells_are_lost_without(estimating, fixed):
    field = field_of(12.0, cells=250)
    hits = [
        len(match_boxes(field.boxes, engine.analyze(field.pixels).regions.boxes, least_iou=0.5)[0])
        for engine in (fixed, estimating)
    ]
    assert hits[0] < 0.8 * len(field.boxes) < 0.95 * len(field.boxes) <= hits[1]


@pytest.mark.parametrize("cell_px", [33.0, 40.0, 50.0])
def test_plausible_cells_change_nothing(estimating, fixed, cell_px):
    field = field_of(cell_px, cells=25)
    one, other = estimating.analyze(field.pixels), fixed.analyze(field.pixels)
    assert one.um_per_px_from != "estimated"
    np.testing.assert_array_equal(one.regions.boxes, other.regions.boxes)
    np.testing.assert_array_equal(one.regions.probabilities, other.regions.probabilities)


def test_a_scale_that_was_given_is_kept(estimating, fixed):
    field = field_of(16.0, cells=120)
    one = estimating.analyze(field.pixels, pixel_um=0.19)
    assert one.um_per_px_from != "estimated"
    other = fixed.analyze(field.pixels, pixel_um=0.19)
    np.testing.assert_array_equal(one.regions.boxes, other.regions.boxes)


def test_too_few_cells_tell_nothing(estimating):
    assert estimating.analyze(field_of(85.0, cells=4).pixels).um_per_px_from == "assumed"
    blank = np.full((480, 640, 3), 200, np.uint8)
    assert estimating.analyze(blank).um_per_px_from == "assumed"


def test_fields_of_a_batch_are_estimated_one_by_one(estimating):
    fields = [field_of(px, cells=n) for px, n in ((40.0, 25), (18.0, 150), (40.0, 25), (90.0, 12))]
    batch = [
        Decoded(
            ref=FieldRef(slide="s", field=str(index), path=Path()),
            frame=Frame(pixels=field.pixels, slide="s", field=str(index)),
        )
        for index, field in enumerate(fields)
    ]
    together = list(estimating.run(iter(batch)))
    assert [result.um_per_px_from != "estimated" for result in together] == [
        True,
        False,
        True,
        False,
    ]
    for result, field in zip(together, fields, strict=True):
        alone = estimating.analyze(field.pixels)
        assert result.um_per_px == alone.um_per_px
        np.testing.assert_array_equal(result.regions.boxes, alone.regions.boxes)


def test_the_run_says_which_fields_and_how_many(tmp_path: Path):
    folder = tmp_path / "s"
    folder.mkdir()
    for name, px in (("usual", 40.0), ("wide", 16.0)):
        Image.fromarray(field_of(px, cells=30 if px > 20 else 150).pixels).save(
            folder / f"{name}.png"
        )
    done = rbc("run", folder, "--out", tmp_path / "r", "--formats", "only")
    assert done.returncode == 0, done.stderr
    estimates = estimates_of(tmp_path / "r")
    assert estimates["usual.png"] == ""
    assert float(estimates["wide.png"]) == pytest.approx(TRUE_UM / 16, rel=0.2)
    warnings = json.loads((tmp_path / "r" / "run.json").read_text())["warnings"]
    assert any(text.startswith("1 fields have implausible cell sizes") for text in warnings)
    recalled = rbc(
        "recall", tmp_path / "r", "--out", tmp_path / "again", "--threshold", "normal=0.9"
    )
    assert recalled.returncode == 0, recalled.stderr
    assert estimates_of(tmp_path / "again") == estimates
    off = rbc("run", folder, "--out", tmp_path / "off", "--formats", "only", "--no-estimate-scale")
    assert off.returncode == 0
    assert set(estimates_of(tmp_path / "off").values()) == {""}


def test_boxes_that_are_as_large_on_any_canvas_change_nothing():
    settings = Pack.open(find_pack("chula12")).manifest.detector
    frame = Frame(pixels=np.zeros((480, 640, 3), np.uint8))
    rounds = []

    def detect(frames: Sequence[Frame], fits: Sequence[CanvasFit]) -> list[Detections]:
        rounds.append(fits)
        corners = np.array([[x, y] for x in range(60, 300, 40) for y in (60, 100)], np.float32)
        sides = [np.float32(90) / np.float32(fit.scale) for fit in fits]  # 26 µm on the first
        boxes = [np.hstack([corners, corners + side]).astype(np.float32) for side in sides]
        ones = np.ones(len(corners), np.float32)
        return [
            Detections(
                boxes=box, scores=ones, classes=np.zeros(len(box), np.uint8), saturated=False
            )
            for box in boxes
        ]

    fit = fit_canvas((480, 640), pixel_um=None, settings=settings)
    [sighting] = CellScale(settings).detect([frame], [fit], detect)
    assert len(rounds) > 1, "it was doubted"
    [first] = detect([frame], [fit])
    np.testing.assert_array_equal(sighting.found.boxes, first.boxes)
    assert (sighting.fit, sighting.cell_scale, sighting.um_per_px) == (fit, fit.scale, None)


def test_patches_show_the_window_that_the_classifier_saw(estimating):
    pack, field = estimating.pack, field_of(16.0, cells=120)
    decoded = Decoded(
        ref=FieldRef(slide="s", field="f", path=Path()),
        frame=Frame(pixels=field.pixels, slide="s", field="f"),
    )
    [result] = estimating.run(iter([decoded]), keep_frames=True)
    # Single cells well inside: a window of so many µm, and a pixel more for the parts of pixels at
    # its ends.
    window_um = pack.manifest.classifier.window_canvas_px * pack.manifest.detector.um_per_canvas_px
    side_px = window_um / result.um_per_px
    boxes = result.regions.boxes
    inside = (boxes[:, :2] > side_px).all(1) & (boxes[:, 2:] < [640 - side_px, 480 - side_px]).all(
        1
    )
    small = (boxes[:, 2:] - boxes[:, :2]).max(1) < 20
    patches = [Image.open(io.BytesIO(patch)).size for patch in cut_patches(result, pack)]
    shown = np.array(patches)[inside & small]
    assert len(shown) > 20
    assert ((shown >= side_px - 0.1) & (shown <= side_px + 2)).all()
