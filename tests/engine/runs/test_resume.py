"""`rbc-engine run --resume`: what is lost by a kill, what is kept, and what is refused."""

from __future__ import annotations

import csv
import json
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

from rbc_engine.runs.finished.finished_run import FinishedRun

from ...waits import wait_until
from ..journals import results_in

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
    with (out / "fields.csv").open(newline="", encoding="utf-8-sig") as file:
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
        with FinishedRun(out) as run:
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


@pytest.fixture
def partial(runner, images, tmp_path) -> Path:
    """A folder with the journal of a run that was killed in the middle."""
    out = tmp_path / "out"
    assert runner(images, out, kill_event=22)["status"] == -9
    assert (out / "run.journal").stat().st_size > 5000
    return out


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def test_without_an_option_a_folder_with_a_run_is_refused(runner, images, partial, whole):
    for out, what in ((partial, "cut short"), (whole, "results of a run")):
        before = {path: path.read_bytes() for path in out.iterdir()}
        refused = runner(images, out)
        assert refused["status"] == 1
        for text in (what, "--resume", "--overwrite"):
            assert text in refused["output"]
        assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_it_says_what_it_keeps(runner, images, partial, whole):
    done = runner(images, partial, "--resume")
    kept = FIELDS - len(set(runner.analysed()))
    line = f"resumed: {kept} of {FIELDS} fields were done before and are kept"
    assert 0 < kept < FIELDS
    assert line in done["output"]
    run = json.loads((partial / "run.json").read_text())
    assert any(warning.startswith(line) for warning in run["warnings"])
    assert_same_results(partial, whole)


def test_a_finished_run_takes_new_images_and_runs_failed_and_changed_ones_again(
    runner, images, tmp_path
):
    source = Path(shutil.copytree(images, tmp_path / "in"))
    out = tmp_path / "out"
    assert runner(source, out)["status"] == 3
    again = runner(source, out, "--resume")
    assert runner.analysed() == ["slide 1/broken.png"]
    assert "1 fields that had failed are run again" in again["output"]
    save(source / "slide 1" / "broken.png", 50)
    save(source / "slide 0" / "1000.png", 51)
    save(source / "a slide before" / "x.png", 52)
    save(source / "slide 0" / "4.png", 53)
    done = runner(source, out, "--resume")
    expected = {"a slide before/x.png", "slide 0/4.png", "slide 0/1000.png", "slide 1/broken.png"}
    assert set(runner.analysed()) == expected
    assert "1 fields are run again because their files changed" in done["output"]
    assert done["status"] == 0
    fresh = tmp_path / "fresh"
    assert runner(source, fresh)["status"] == 0
    assert_same_results(out, fresh)


def test_what_is_no_longer_named_is_kept_if_it_was_done(runner, finished, tmp_path):
    other = tmp_path / "in" / "slide 3"
    save(other / "x.png", 1)
    done = runner(other.parent, finished, "--resume")
    assert "are not among INPUT now; they are kept" in done["output"]
    assert "1 fields that had failed are no longer among INPUT" in done["output"]
    assert runner.analysed() == ["slide 3/x.png"]
    assert len(rows(finished)) == FIELDS


def test_the_same_file_under_another_name_is_refused(runner, images, finished):
    refused = runner(images / "slide 0", finished, "--resume")
    assert refused["status"] == 1
    assert "its cells would count twice" in refused["output"]
    assert runner.analysed() == []


def test_limit_only_says_how_far_to_go(runner, images, whole, tmp_path):
    out = tmp_path / "out"
    assert runner(images, out, "--limit", "5")["status"] == 0
    assert len(rows(out)) == 5
    assert runner(images, out, "--resume")["status"] == 3
    assert len(set(runner.analysed())) == FIELDS - 5
    assert_same_results(out, whole)


def test_pictures_can_be_added_to_a_finished_run_without_networks(runner, images, finished):
    assert runner(images, finished, "--resume", "--formats", "overlay")["status"] == 3
    assert runner.analysed() == ["slide 1/broken.png"]
    assert len(list(finished.rglob("*.png"))) == FIELDS - 1
    refused = runner(images, finished, "--resume")
    assert refused["status"] == 1
    assert "formats were report,csv,overlay, now report,csv" in refused["output"]
    assert len(list(finished.rglob("*.png"))) == FIELDS - 1


@pytest.mark.parametrize("state", ["partial", "finished"])
def test_other_settings_are_refused_with_the_difference(runner, images, state, request):
    out = request.getfixturevalue(state)
    before = {path: path.read_bytes() for path in out.iterdir()}
    for more, difference in (
        (["--precision", "bf16"], "precision was fp32, now bf16"),
        (["--um-per-px", "0.5"], "setting um_per_px was None, now 0.5"),
    ):
        refused = runner(images, out, "--resume", *more)
        assert refused["status"] == 1
        assert difference in refused["output"]
        assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_another_pack_or_program_is_refused(runner, images, finished):
    path = finished / "run.json"
    run = json.loads(path.read_text())
    run["pack"]["version"] = "9.9.9"
    run["program"]["version"] = "0.0.1"
    path.write_text(json.dumps(run))
    refused = runner(images, finished, "--resume")
    assert refused["status"] == 1
    assert "pack was chula12 9.9.9 (sha256" in refused["output"]
    assert "program was 0.0.1 (commit" in refused["output"]


def test_a_damaged_journal_gives_what_is_before_the_damage(runner, images, partial, whole):
    path = partial / "run.journal"
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)
    done = runner(images, partial, "--resume")
    assert "bytes that were not a whole record" in done["output"]
    assert_same_results(partial, whole)


@pytest.mark.parametrize("data", [b"", b"x" * 5000, b"RBCJ" + bytes(100)])
def test_a_journal_without_a_beginning_is_refused(runner, images, partial, data):
    (partial / "run.journal").write_bytes(data)
    refused = runner(images, partial, "--resume")
    assert refused["status"] == 1
    assert "damaged at its beginning" in refused["output"]
    assert "--overwrite" in refused["output"]
    assert runner.analysed() == []


def test_a_finished_run_that_was_edited_is_refused(runner, images, finished):
    def edit(name: str, text: str) -> None:
        (finished / name).write_text(text, newline="")

    fields = (finished / "fields.csv").read_bytes().decode()
    run = (finished / "run.json").read_text()
    parquet = (finished / "regions.parquet").read_bytes()
    shorter = pq.read_table(finished / "regions.parquet").slice(3)
    edits = [
        ("fields.csv", lambda: edit("fields.csv", "".join(fields.splitlines(True)[:-1]))),
        ("fields.csv", lambda: edit("fields.csv", fields.replace("false", "true", 1))),
        ("regions.parquet", lambda: pq.write_table(shorter, finished / "regions.parquet")),
        ("regions.parquet", (finished / "regions.parquet").unlink),
        ("run.json", lambda: edit("run.json", run[: len(run) // 2])),
        ("run.json", lambda: edit("run.json", run.replace('"counts": {', '"counts": [], "x": {'))),
        ("run.json", lambda: edit("run.json", run.replace('"fields": 30', '"fields": 31'))),
        ("run.json", lambda: edit("run.json", "[" * 100_000)),
    ]
    for name, make in edits:
        make()
        before = {path: path.read_bytes() for path in finished.iterdir()}
        refused = runner(images, finished, "--resume")
        assert refused["status"] == 1
        assert f"{finished / name}" in refused["output"]
        assert runner.analysed() == []
        assert {path: path.read_bytes() for path in finished.iterdir()} == before
        edit("fields.csv", fields)
        edit("run.json", run)
        (finished / "regions.parquet").write_bytes(parquet)


def test_other_files_are_no_run_and_stay(runner, images, tmp_path, finished):
    out = tmp_path / "other"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    refused = runner(images, out, "--resume")
    assert refused["status"] == 1
    assert "notes.txt" in refused["output"]
    (finished / "notes.txt").write_text("mine")
    assert runner(images, finished, "--resume")["status"] == 3
    assert (finished / "notes.txt").read_text() == "mine"


def test_a_full_disk_keeps_what_was_done(runner, images, whole, tmp_path):
    out = tmp_path / "out"
    full = runner(images, out, most_bytes=30_000)
    assert full["status"] == 1
    assert f"cannot write {out / 'run.journal'}: File too large" in full["output"]
    assert "fields done so far are saved: repeat the same command with --resume" in full["output"]
    assert [path.name for path in out.iterdir()] == ["run.journal"]
    done = runner(images, out, "--resume")
    assert len(set(runner.analysed())) < FIELDS
    assert done["status"] == 3
    assert_same_results(out, whole)


@pytest.mark.slow
def test_real_processes_with_real_networks(repository, tmp_path):
    def rbc(*arguments: object, results: int | None = None) -> int:
        command = [
            sys.executable,
            "-m",
            "rbc_engine",
            "run",
            str(repository / "samples"),
            *map(str, arguments),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            if results is not None:
                wait_until(lambda: results_in(tmp_path / "out" / "run.journal") >= results)
                process.kill()
            _, errors = process.communicate(timeout=600)
        finally:
            process.kill()
        assert b"Traceback" not in errors, errors
        return process.returncode

    whole = tmp_path / "whole"
    assert rbc("--out", whole) == 0
    assert rbc("--out", tmp_path / "out", results=1) == -9
    assert rbc("--out", tmp_path / "out", "--resume", results=4) == -9
    assert rbc("--out", tmp_path / "out", "--resume") == 0
    assert_same_results(tmp_path / "out", whole)
