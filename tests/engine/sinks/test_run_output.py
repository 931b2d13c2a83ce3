"""The files of a run as a set: together or not at all, on a real disk, under real signals."""

from __future__ import annotations

import hashlib
import json
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rbc_engine.errors import OutputError, UsageError
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.own_files import OWN_FILES
from rbc_engine.sinks.run_json import RunRecord

ALL_FILES = ["cells.parquet", "fields.csv", "regions.parquet", "run.json", "slides.csv"]

# In processes of their own, since limits and signals hold for a whole process. What to write comes
# on stdin.
FULL_DISK = """
import pickle, resource, sys
from pathlib import Path
from rbc_engine.errors import OutputError
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for name, (limit, pack, results, run) in pickle.load(sys.stdin.buffer).items():
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with RunOutput(claim(Path(sys.argv[1], name)), pack) as output:
            for result in results:
                output.write(result)
            output.finish(run)
    except OutputError as error:
        print(error, flush=True)
"""

KILLED = """
import pickle, sys, time
from pathlib import Path
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
pack, results = pickle.load(sys.stdin.buffer)
with RunOutput(claim(Path(sys.argv[1])), pack) as output:
    for result in results:
        output.write(result)
    print("half-way", flush=True)
    time.sleep(60)
"""


def names(folder):
    """All but the list of what a run wrote."""
    return sorted(path.name for path in folder.iterdir() if path.name != OWN_FILES)


def test_a_filled_folder_is_refused(tmp_path, toy_pack):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=rf"{tmp_path} is not empty.*notes.txt") as refused:
            RunOutput(claim(tmp_path, "overwrite" if overwrite else "new"), toy_pack)
        assert "--overwrite" not in str(refused.value)
    assert names(tmp_path) == ["notes.txt"]


def test_overwrite_replaces_only_the_runs_files_and_only_at_the_end(
    tmp_path, toy_pack, make_result
):
    (tmp_path / ".regions.parquet.0123abcd.partial").write_text("left by a killed run")
    with RunOutput(claim(tmp_path, "overwrite"), toy_pack) as output:
        output.write(make_result(count=2))
        output.finish(RunRecord.of(toy_pack, warnings=["1"]))
    (tmp_path / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert names(tmp_path) == sorted([*ALL_FILES, "notes.txt"])
    with RunOutput(claim(tmp_path, "overwrite"), toy_pack) as output:
        output.write(make_result(count=5))
        with pytest.raises(ValueError, match="files"):
            output.finish(RunRecord.of(toy_pack, files="no table"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with RunOutput(claim(tmp_path, "overwrite"), toy_pack) as output:
        output.write(make_result(count=5))
        output.finish(RunRecord.of(toy_pack, warnings=["2"]))
    assert pq.read_table(tmp_path / "regions.parquet").num_rows == 5
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["warnings"] == ["2"]
    tables = [name for name in ALL_FILES if name != "run.json"]
    assert run["files"] == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in tables
    }
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_out_that_cannot_be_a_folder_is_refused(tmp_path, toy_pack, overwrite):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        with pytest.raises(OutputError, match=rf"cannot write {out}: .*name another --out"):
            RunOutput(claim(out, "overwrite" if overwrite else "new"), toy_pack)
    (tmp_path / "fields.csv").mkdir()
    with pytest.raises(OutputError):
        RunOutput(claim(tmp_path, "overwrite" if overwrite else "new"), toy_pack)
    assert names(tmp_path) == ["fields.csv", "file"]


def test_unknown_format_is_refused_before_anything_is_made(tmp_path, toy_pack):
    with pytest.raises(UsageError, match=r"may name report, csv, geojson, .* \(got 'xml'\)"):
        RunOutput(claim(tmp_path / "out"), toy_pack, formats=["xml"])
    assert names(tmp_path) == []


def test_an_error_leaves_nothing_behind(tmp_path, toy_pack, make_failure):
    def run():
        with RunOutput(claim(tmp_path), toy_pack, formats=["overlay"]) as output:
            output.write(make_failure())
            assert len(names(tmp_path)) == 5
            assert all(name.startswith(".") for name in names(tmp_path))
            raise RuntimeError("lane failed")

    with pytest.raises(RuntimeError, match="lane failed"):
        run()
    assert names(tmp_path) == []


def test_leaving_without_finish_leaves_nothing_behind(tmp_path, toy_pack, make_result):
    with RunOutput(claim(tmp_path), toy_pack) as output:
        output.write(make_result())
    output.discard()
    assert names(tmp_path) == []


def test_discard_after_finish_removes_nothing(tmp_path, toy_pack):
    output = RunOutput(claim(tmp_path), toy_pack)
    output.finish(RunRecord.of(toy_pack))
    output.discard()
    assert names(tmp_path) == ALL_FILES


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path, toy_pack, make_result):
    regions = [make_result(field=str(i), count=1000, seed=i) for i in range(60)]
    fields = [make_result(field=f"{i:0300}", count=0) for i in range(400)]
    types = tuple(f"type_{i:030}" for i in range(256))
    wide = replace(toy_pack, manifest=toy_pack.manifest.model_copy(update={"types": types}))
    short = RunRecord.of(toy_pack)
    cases = {
        "regions.parquet": (1_000_000, toy_pack, regions, short),
        "fields.csv": (100_000, toy_pack, fields, short),
        "fields.csv at the end": (10_000, toy_pack, fields[:30], short),
        "regions.parquet, its header": (5_000, wide, [], short),
        "run.json": (10_000, toy_pack, [], RunRecord.of(toy_pack, warnings=["x" * 20_000])),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)],
        input=pickle.dumps(cases), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    messages = done.stdout.decode().splitlines()
    assert len(messages) == len(cases)
    remedy = "raise the limit on the size of files (ulimit -f), or name another --out"
    for case, message in zip(cases, messages, strict=True):
        file = tmp_path / case / case.replace(",", "").split()[0]
        assert message == f"cannot write {file}: File too large; {remedy}"
        assert names(tmp_path / case) == []


def test_an_interrupted_finish_leaves_no_run_json(tmp_path, toy_pack):
    with RunOutput(claim(tmp_path), toy_pack) as output:
        output.finish(RunRecord.of(toy_pack, warnings=["1"]))
    with RunOutput(claim(tmp_path, "overwrite"), toy_pack) as output:
        (tmp_path / "slides.csv").unlink()
        (tmp_path / "slides.csv").mkdir()
        with pytest.raises(OutputError, match=r"slides\.csv: .*a folder is in the way"):
            output.finish(RunRecord.of(toy_pack, warnings=["2"]))
    assert names(tmp_path) == ["cells.parquet", "fields.csv", "regions.parquet", "slides.csv"]


def test_a_full_device_is_named_with_its_remedy(tmp_path):
    full = Path("/dev/full")
    message = r"cannot write /dev/full: No space.*free space there, or name another --out"
    with pytest.raises(OutputError, match=message), explain_os_errors(full):
        full.write_bytes(b"x")


def test_a_file_removed_by_another_run_is_an_output_error(tmp_path, toy_pack):
    output = RunOutput(claim(tmp_path), toy_pack)
    with RunOutput(claim(tmp_path, "overwrite"), toy_pack) as other:
        other.finish(RunRecord.of(toy_pack))
    with pytest.raises(OutputError, match="another run with the same --out"):
        output.finish(RunRecord.of(toy_pack))
    for name in ("regions.parquet", "cells.parquet", "fields.csv", "slides.csv"):
        assert (tmp_path / name).is_file()
    assert [name for name in names(tmp_path) if name.startswith(".")] == []


@pytest.mark.parametrize(
    ("number", "left"), [(signal.SIGKILL, True), (signal.SIGINT, False)], ids=["SIGKILL", "SIGINT"]
)
def test_a_killed_run_shows_no_file(tmp_path, toy_pack, make_result, number, left):
    results = [make_result(field=str(field), count=1000, seed=field) for field in range(60)]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as run:  # fmt: skip
        run.stdin.write(pickle.dumps((toy_pack, results)))
        run.stdin.close()
        assert run.stdout.readline() == b"half-way\n"
        run.send_signal(number)
        assert run.wait(30) != 0
    assert all(name.startswith(".") and name.endswith(".partial") for name in names(tmp_path))
    assert bool(names(tmp_path)) == left
    with RunOutput(claim(tmp_path, "overwrite" if left else "new"), toy_pack) as output:
        output.finish(RunRecord.of(toy_pack))
    assert names(tmp_path) == ALL_FILES


def test_an_atomic_file_is_the_old_one_until_it_is_the_new_one(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    file = AtomicFile(path)
    file.write(b"new")
    file.complete()
    assert path.read_bytes() == b"old"
    file.finish()
    file.discard()
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x"]
