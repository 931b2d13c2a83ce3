"""`rbc-engine live` as a user meets it: real processes, real files, real signals."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rbc_engine.sinks.files.records import RecordReader
from rbc_engine.sinks.own_files import LIVE_JOURNAL
from rbc_engine.sources.synthetic.field import render_field

FILES = {
    *(".run.files", "regions.parquet", "cells.parquet", "fields.csv", "slides.csv", "run.json"),
    *("report.html", "regions.csv"),
}


def command(*arguments):
    return [sys.executable, "-m", "rbc_engine", "live", *map(str, arguments)]


def live(*arguments, **options):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False, **options
    )


def rows(out, name):
    with (out / name).open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def probabilities(out):
    """Return by field, float32 [R, T], each type's probabilities in ascending order.

    Sorted, because regions of equal score have no order of their own.
    """
    table = pq.read_table(out / "regions.parquet").to_pandas()
    columns = [name for name in table.columns if name.startswith("p_")]
    return {
        field: np.sort(regions[columns].to_numpy(), axis=0)
        for field, regions in table.groupby("field")
    }


def check_output(out):
    """What `run` promises of its folder, and that the frames add up. Returns run.json."""
    assert {path.name for path in out.iterdir()} == FILES
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    fields, slides = rows(out, "fields.csv"), rows(out, "slides.csv")
    table = pq.read_table(out / "regions.parquet")
    frames, counts = run["frames"], run["counts"]
    assert list(frames) == ["submitted", "done", "dropped", "rejected", "failed", "stale"]
    assert frames["submitted"] == sum(frames.values()) - frames["submitted"]
    assert counts["fields"] == len(fields) == frames["done"] + frames["failed"]
    assert counts["failed"] == frames["failed"] == sum(row["status"] == "failed" for row in fields)
    assert len({(row["slide"], row["field"]) for row in fields}) == len(fields)
    assert counts["regions"] == table.num_rows == sum(int(row["regions"]) for row in slides)
    assert counts["regions"] == sum(int(row["regions"] or 0) for row in fields)
    assert counts["abnormal"] == sum(table["abnormal"].to_pylist())
    return run


@pytest.fixture(scope="module")
def smear(tmp_path_factory):
    """Ten small fields, and one that is no image."""
    slide = tmp_path_factory.mktemp("replay") / "slide"
    slide.mkdir()
    for index in range(10):
        field = render_field(seed=index, width=320, height=240, cells=8)
        Image.fromarray(field.pixels).save(slide / f"{index}.jpg")
    (slide / "10.jpg").write_bytes(b"")
    return slide


def test_the_demo_camera_prints_a_table_that_adds_up(tmp_path):
    out = tmp_path / "out"
    done = live("--fps", 30, "--seconds", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    run = check_output(out)
    frames = run["frames"]
    assert frames["submitted"] > 0
    cells = [part.strip() for line in done.stdout.splitlines() for part in line.split("│")]
    shown = dict(pairwise(cells))
    for name, key in (("frames", "submitted"), ("done", "done"), ("dropped", "dropped")):
        assert shown[name] == str(frames[key])
    assert shown["in flight"] == "0"
    assert run["settings"]["source"] == "DemoCamera"
    assert run["stopped_by"] == "seconds"
    assert run["decoder"].startswith("none; Micro-Manager")


@pytest.mark.parametrize(
    "options",
    [[], pytest.param(["--no-field-prior", "--no-estimate-scale"], marks=pytest.mark.slow)],
)
def test_a_replay_in_full_gives_what_run_gives(tmp_path, smear, options):
    out, other = tmp_path / "live", tmp_path / "run"
    done = live(
        "--replay", smear, "--fps", 50, "--out", out, "--on-full", "block", "--json", *options
    )
    assert done.returncode == 3, done.stderr  # one is no image
    run = check_output(out)
    assert json.loads(done.stdout) == run
    assert run["frames"]["done"] == 10
    assert run["frames"]["failed"] == 1
    assert run["stopped_by"] == "source_end"
    assert (out / "report.html").read_text("utf-8").count('id="picture-') == 10
    for setting in ("field_prior", "estimate_scale"):
        assert run["settings"][setting] is not bool(options)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "rbc_engine",
            "run",
            str(smear),
            "--out",
            str(other),
            "--quiet",
            *options,
        ],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 3, ran.stderr
    found, expected = (probabilities(folder) for folder in (out, other))
    assert found.keys() == expected.keys()
    for field in found:
        np.testing.assert_allclose(found[field], expected[field], atol=0.02)
    mine, theirs = (
        sorted(
            (r["slide"], r["field"], r["path"], r["regions"], r["abnormal"], r["error"])
            for r in rows(folder, "fields.csv")
        )
        for folder in (out, other)
    )
    assert mine == theirs


def test_existing_results_are_refused_and_wrong_usage_is_exit_2(tmp_path, smear):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    refused = live("--replay", smear, "--out", out)
    assert refused.returncode == 1
    assert "name another --out" in refused.stderr
    for arguments in (
        ["--replay", smear, "--config", "x.cfg"],
        ["--loop"],
        ["--fps", "0"],
        ["--seconds", "-1"],
        ["--replay", tmp_path / "missing"],
        ["--on-full", "explode", "--replay", smear],
        ["--enough-width", "2", "--replay", smear],
    ):
        done = live(*arguments, "--out", tmp_path / "new")
        assert done.returncode == 2, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())
    bad = live("--config", tmp_path / "no.cfg", "--out", tmp_path / "new")
    assert bad.returncode == 1
    assert "no.cfg" in bad.stderr


def journal_bytes(out):
    path = out / LIVE_JOURNAL
    return path.stat().st_size if path.exists() else 0


def wait_for_fields(process, out, count):
    """Until the journal holds so many done fields of a replay."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if journal_bytes(out):
            with (out / LIVE_JOURNAL).open("rb") as file:
                headers = [record.header for record in RecordReader(file)]
            done = [header["field"] for header in headers if header.get("status") == "done"]
            if len(done) >= count:
                return done
        time.sleep(0.02)
    raise AssertionError("the run did not get so far")


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_finishes_what_is_in_flight(tmp_path, smear, number):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("--replay", smear, "--loop", "--fps", 40, "--out", out),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for_fields(process, out, 3)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    run = check_output(out)
    assert run["frames"]["done"] >= 3


@pytest.mark.slow
def test_killed_it_loses_at_most_the_last_second(tmp_path, smear):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("--replay", smear, "--loop", "--fps", 40, "--out", out),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        done = wait_for_fields(process, out, 8)
        refused = live("--recover", out)  # it runs
        assert refused.returncode == 1
        assert "still being written" in refused.stderr
        process.kill()
        process.wait(30)
    finally:
        process.kill()
    assert not FILES & {path.name for path in out.iterdir()}
    again = live("--replay", smear, "--out", out)
    assert again.returncode == 1
    assert "--recover" in again.stderr
    recovered = live("--recover", out, "--json")
    assert recovered.returncode == 0, recovered.stderr
    run = check_output(out)
    assert json.loads(recovered.stdout) == run
    assert set(done) <= {row["field"] for row in rows(out, "fields.csv")}
    assert any("cut short" in warning for warning in run["warnings"])
    assert live("--recover", out).returncode == 1  # once


def test_a_full_disk_keeps_what_was_written(tmp_path, smear):
    """A file-size limit of the kernel stands in for the disk."""
    out = tmp_path / "out"

    def limit_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    # Blocking: frames that are dropped while the networks compile would fill the journal, too.
    done = live(
        *("--replay", smear, "--loop", "--fps", 40, "--on-full", "block", "--out", out),
        preexec_fn=limit_files,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("rbc-engine: cannot write")
    assert "--recover" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in out.iterdir()] == [LIVE_JOURNAL]
    assert live("--recover", out).returncode == 0
    assert check_output(out)["frames"]["done"] >= 1


@pytest.mark.slow
def test_it_stops_when_it_is_sure(tmp_path, smear):
    out = tmp_path / "out"
    done = live(
        "--replay", smear, "--loop", "--fps", 20, "--out", out,
        "--enough-width", 0.9, "--min-cells", 120, "--quiet",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert check_output(out)["counts"]["regions"] >= 120


def test_a_missing_camera_library_is_named(tmp_path):
    for name in ("pymmcore", "pymmcore_plus"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('no such thing')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = live("--out", tmp_path / "out", env=environment)
    assert done.returncode == 1
    assert "pip install 'rbc-engine[camera]'" in done.stderr
