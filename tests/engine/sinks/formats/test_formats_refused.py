"""Formats that cannot be made or written: refused with the remedy, and nothing left behind."""

from __future__ import annotations

import dataclasses
import pickle
import re
import subprocess
import sys

import pytest

from rbc_engine.errors import OutputError, UsageError
from rbc_engine.sinks.formats import table
from rbc_engine.sinks.formats.table import FORMATS, check_formats
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord


def test_what_cannot_be_made_is_refused_before_anything_is(tmp_path, toy_pack, monkeypatch):
    with pytest.raises(
        UsageError, match=r"csv, geojson, coco, anndata, overlay, patches, webdataset"
    ):
        RunOutput(claim(tmp_path / "out"), toy_pack, formats=["qupath"])
    missing = dataclasses.replace(FORMATS["anndata"], library="no_such_library")
    monkeypatch.setattr(table, "FORMATS", {**FORMATS, "anndata": missing})
    with pytest.raises(
        UsageError, match=r"needs no_such_library.*pip install 'rbc-engine\[anndata\]'"
    ):
        check_formats(["csv", "anndata"])
    with RunOutput(claim(tmp_path), toy_pack) as output:
        output.finish(RunRecord.of(toy_pack))
    (tmp_path / "coco.json").mkdir()
    with pytest.raises(OutputError, match=r"coco.json .* is a folder"):
        RunOutput(claim(tmp_path, "overwrite"), toy_pack, formats=["coco"])
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("name", ["patches", "webdataset"])
def test_patches_need_frames(tmp_path, toy_pack, make_result, name):
    with RunOutput(claim(tmp_path), toy_pack, formats=[name]) as output:
        assert output.needs_frames
        with pytest.raises(ValueError, match="carry their frame"):
            output.write(make_result())
    assert list(tmp_path.iterdir()) == []


# In a process of its own, since the limit on the size of files holds for a whole process.
FULL_DISK = """
import pickle, resource, sys
from pathlib import Path
from rbc_engine.errors import OutputError
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
pack, results, cases = pickle.load(sys.stdin.buffer)
for name, limit in cases:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    out = Path(sys.argv[1], f"{name}-{limit}")
    try:
        with RunOutput(claim(out), pack, formats=[name]) as output:
            for result in results:
                output.write(result)
            output.finish(RunRecord.of(pack))
        print("done", flush=True)
    except OutputError as error:
        print(error, flush=True)
"""


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path, toy_pack, make_result, with_frame):
    fields = [make_result(field=f"{i}.png", count=400, seed=i) for i in range(3)]
    results = [with_frame(field, width=480, height=480) for field in fields]
    limits = {
        "report": [1000, 60_000],
        "csv": [1000, 100_000],
        "geojson": [100, 100_000],
        "coco": [
            100,
            100_000,
            250_000,
        ],  # 250 kB hold the annotations, but not the images beside them
        "anndata": [
            0,
            1,
            600,
            3000,
            5000,
            10_000,
            20_000,
            40_000,
            60_000,
            100_000,
            200_000,
            400_000,
        ],
        "patches": [500],
        "webdataset": [1000, 1_000_000],
        "overlay": [10_000],
    }
    assert limits.keys() == FORMATS.keys()
    cases = [(name, limit) for name in limits for limit in limits[name]]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)],
        input=pickle.dumps((toy_pack, results, cases)),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    messages = done.stdout.decode().splitlines()
    for (name, limit), message in zip(cases, messages, strict=True):
        assert re.match(r"cannot write .*: File too large; raise the limit", message), (name, limit)
        assert list((tmp_path / f"{name}-{limit}").iterdir()) == []
