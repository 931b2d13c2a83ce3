"""`rbc-engine run --resume`: what is lost by a kill, what is kept, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rbc_engine.run_folder import RunFolder

FIELDS = 30
IN_FLIGHT = 2 * 2 * 2 + 2
"""Two batches of two frames for each of two lanes, and a batch on its way to the journal."""


class Runner:
    """The program of killed_runs.py."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        program = Path(__file__).with_name("killed_runs.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, source: Path, out: Path, *more: str, **order: object) -> dict:
        self.log.unlink(missing_ok=True)
        order |= {"arguments": [str(source), "--out", str(out), *more], "log": str(self.log)}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def analysed(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def close(self) -> None:
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        self._process.stdout.close()


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("runner"))
    yield runner
    runner.close()


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Two slides, a name that a spreadsheet would run, and a broken file."""
    folder = tmp_path_factory.mktemp("images") / "in"
    for index in range(FIELDS - 2):
        save(folder / f"slide {index % 2}" / f"{index}.png", index)
    save(folder / "=slide" / "'a,\"b.png", 99)
    (folder / "slide 1" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def whole(runner, images, tmp_path_factory) -> Path:
    """The results of a run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert runner(images, out)["status"] == 3
    return out


def rows(out: Path, *, times: bool = False) -> list[dict[str, str]]:
    with (out / "fields.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    for row in found:
        if not times:
            del row["seconds"]
    return found


def assert_same_results(out: Path, whole: Path) -> None:
    assert pq.read_table(out / "regions.parquet").equals(pq.read_table(whole / "regions.parquet"))
    assert rows(out) == rows(whole)
    assert (out / "slides.csv").read_bytes() == (whole / "slides.csv").read_bytes()
    counts = [json.loads((folder / "run.json").read_text())["counts"] for folder in (out, whole)]
    assert counts[0] == counts[1]
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def assert_no_lie(out: Path) -> None:
    """Where there is a run.json, everything beside it is whole and belongs to it."""
    if (out / "run.json").exists():
        with RunFolder(out) as run:
            assert len(list(run.results())) == len(run.rows)


@pytest.mark.slow
def test_killed_at_a_hundred_moments_it_loses_what_was_in_flight_and_nothing_else(
    runner, images, whole, tmp_path
):
    random.seed(8)
    events = runner(images, tmp_path / "counted")["events"]
    assert events > 50
    points = [{"kill_event": n} for n in sorted(random.sample(range(1, events + 1), 50))]
    points += [{"kill_event": n} for n in range(events - 20, events + 1)]
    points += [{"kill_after_s": random.uniform(0, 0.4), "frame_s": 0.01} for _ in range(29)]
    again = 0
    for number, point in enumerate(points):
        out = tmp_path / str(number)
        first = runner(images, out, **point)
        analysed = Counter(runner.analysed())
        assert_no_lie(out)
        if number % 3 == 0:  # the resumed run is killed, too
            runner(images, out, "--resume", kill_event=random.randrange(1, events))
            analysed += Counter(runner.analysed())
            assert_no_lie(out)
            again += 1
        assert runner(images, out, "--resume")["status"] == 3
        analysed += Counter(runner.analysed())
        assert_same_results(out, whole)
        del analysed["slide 1/broken.png"]
        repeated = sum(count - 1 for count in analysed.values())
        assert repeated <= IN_FLIGHT * (1 + (number % 3 == 0)), point
        if first["status"] != -9:
            assert "kill_after_s" in point
        shutil.rmtree(out)
    assert again > 30


def test_killed_while_it_draws_it_ends_with_every_picture(runner, images, tmp_path):
    options = ("--formats", "overlay")
    whole = tmp_path / "whole"
    events = runner(images, whole, *options)["events"]
    pictures = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*.png")}
    assert len(pictures) == FIELDS - 1
    for point in (events // 3, events // 2, events - 12, events - 3):
        out = tmp_path / str(point)
        assert runner(images, out, *options, kill_event=point)["status"] == -9
        assert runner(images, out, *options, "--resume")["status"] == 3
        assert_same_results(out, whole)
        assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")} == pictures
