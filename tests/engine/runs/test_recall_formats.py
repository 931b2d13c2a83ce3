"""`rbc-engine recall`: the report and pictures that the run had, and what it says of what stays."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rbc_engine.bench.instruments.stub_engine import stub_regions
from rbc_engine.cli import app
from rbc_engine.lanes.stages.call import types_held
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.frames import FileStamp, Frame
from rbc_engine.types.results import FieldResult, TileCounts

FORMATS = ("report", "csv", "overlay")


@pytest.fixture(scope="module")
def pack() -> Pack:
    return Pack.open(find_pack("chula12"))


@pytest.fixture
def source(pack, tmp_path):
    """A finished run of three fields and a whole slide, with report, regions.csv and overlays."""
    results = []
    for index in range(4):
        path = tmp_path / "in" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.full((480, 640, 3), 40 * index, np.uint8)
        Image.fromarray(pixels).save(path)
        regions = stub_regions(50, types=len(pack.types), seed=index)
        regions = replace(regions, probabilities=0.5 * regions.probabilities)
        has = types_held(regions.probabilities, settings=pack.manifest.classifier)
        result = FieldResult(
            slide="s", field=path.name, path=str(path), width=640, height=480,
            regions=replace(regions, has=has), stamp=FileStamp.of(path),
            frame=Frame(pixels=pixels),
        )  # fmt: skip
        if index == 3:
            result = replace(result, frame=None, tiles=TileCounts(run=1, blank=0))
        results.append(result)
    out = tmp_path / "run"
    with RunOutput(claim(out), pack, formats=FORMATS) as output:
        for result in results:
            output.write(result)
        abnormal = sum(int(result.regions.abnormal.sum()) for result in results)
        counts = {"fields": 4, "failed": 0, "regions": 200, "abnormal": abnormal}
        slides = [{"field": "3.png"}]
        settings = {"formats": FORMATS}
        output.finish(RunRecord.of(pack, settings=settings, counts=counts, whole_slides=slides))
    return out


def recall(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["recall", *map(str, arguments)])
    assert done.exit_code == 0, done.exception
    return " ".join(done.stdout.split())


def overlays(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("overlays/s/*"))


def test_report_and_overlays_come_again_with_the_new_types(source, tmp_path):
    out = tmp_path / "out"
    told = recall(source, "--out", out, "--threshold", "normal=0.99", "--no-at-least-one")
    assert f"to look at: {out / 'report.html'}" in told
    assert overlays(out) == overlays(source) == ["0.png.png", "1.png.png", "2.png.png"]
    assert json.loads((out / "run.json").read_text())["settings"]["formats"] == list(FORMATS)
    page = (out / "report.html").read_text()
    assert page.count('id="picture-') == 3
    before, now = ((folder / "regions.csv").read_text() for folder in (source, out))
    assert before != now
    rows = list(csv.DictReader(now.splitlines()))
    for row in rows:
        p = float(row["p_normal"])
        assert abs(p - 0.99) < 1e-4 or row["has_normal"] == str(p > 0.99).lower()


def test_without_its_images_the_report_comes_alone_and_that_is_said(source, tmp_path):
    os.utime(tmp_path / "in" / "1.png", ns=(1, 1))
    told = recall(source, "--out", tmp_path / "out", "--threshold", "normal=0.99")
    assert "the images of 1 fields, the first of them 1.png, are not where the run read" in told
    assert "overlay of the run are not made again" in told
    assert overlays(tmp_path / "out") == []
    assert (tmp_path / "out" / "report.html").read_text().count('id="picture-') == 2


def test_what_stays_and_why_is_said(source, pack, tmp_path):
    told = recall(source, "--out", tmp_path / "out", "--threshold", "normal=1")
    rows = list(csv.DictReader((tmp_path / "out" / "regions.csv").read_text().splitlines()))
    kept = sum(row["has_normal"] == "true" for row in rows)
    assert kept
    said = f"note: {kept} regions keep normal below its threshold of 1, because no other type is"
    assert said in told
    assert "--no-at-least-one lets them go" in told
    threshold = f"{pack.manifest.caller.threshold:g}"
    said = "abnormal does not follow the thresholds of types: it is true where abnormal_p is at "
    assert f"{said}least {threshold}" in told
    told = recall(
        *(source, "--out", tmp_path / "let", "--threshold", "normal=1"),
        *("--no-at-least-one", "--abnormal", "teardrop"),
    )
    assert "regions keep" not in told
    assert "abnormal follows the thresholds" in told
