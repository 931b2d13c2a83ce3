"""The examples run as they stand, each in a process of its own."""

from __future__ import annotations

import csv
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rbc_engine.sinks.run_json import RunRecord


def run(repository: Path, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(repository / "examples" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_its_test(repository: Path) -> None:
    names = {path.name for path in (repository / "examples").glob("*.py")}
    assert names == {
        "asyncio_session.py",
        "camera_thread.py",
        "embed.py",
        "live_demo_camera.py",
        "own_sink.py",
        "read_geojson.py",
        "run_from_python.py",
        "stop_when_sure.py",
        "technicians_afternoon.py",
    }


def test_embed_is_twenty_lines_and_runs(repository: Path) -> None:
    assert len((repository / "examples" / "embed.py").read_text().splitlines()) <= 20
    printed = run(repository, "embed.py")
    assert printed.count("done") == 7  # six fields, and the counts
    assert "'submitted': 6, 'done': 6" in printed


def test_asyncio_session_gives_every_frame(repository: Path) -> None:
    assert run(repository, "asyncio_session.py").count(": done, ") == 6


def test_camera_thread_scans_two_slides_and_writes_a_run(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    printed = run(repository, "camera_thread.py", str(out))
    record = RunRecord.read(out / "run.json")
    assert record.frames is not None
    assert record.frames["submitted"] == 6
    assert record.counts.slides == 2
    assert record.counts.fields == record.frames["done"] >= 2
    assert printed.count(" regions that no border cuts abnormal") == 2
    assert (out / "report.html").read_text("utf-8").count('id="picture-') == record.counts.fields
    with (out / "slides.csv").open(newline="", encoding="utf-8") as file:
        counted = [f"{row['whole_abnormal']} of " for row in csv.DictReader(file)]
    assert all(count in printed for count in counted)


def test_embedding_quotes_its_examples(repository: Path) -> None:
    """What the page shows of an example is what the example does."""
    page = (repository / "docs" / "embedding.md").read_text("utf-8")
    quoted = 0
    for path in (repository / "examples").glob("*.py"):
        code = "\n".join(line.strip() for line in path.read_text("utf-8").splitlines())
        for block in re.findall(
            rf"{path.name}\)[^\n]*(?:\n[^\n]+)*?:\n\n((?: {{4}}.*\n|\n)+)", page
        ):
            assert "\n".join(line.strip() for line in block.strip().splitlines()) in code
            quoted += 1
    assert quoted == 3


def test_run_from_python_is_ten_lines_and_writes_a_run(repository: Path, tmp_path: Path) -> None:
    lines = (repository / "examples" / "run_from_python.py").read_text().splitlines()
    assert len([line for line in lines if line]) <= 10
    out = tmp_path / "results"
    printed = run(repository, "run_from_python.py", str(out)).splitlines()
    assert printed[:7] == [f"{done} of 6" for done in range(7)]
    record = RunRecord.read(out / "run.json")
    assert sum(int(line.split()[1]) for line in printed[7:]) == record.counts.abnormal
    assert len(printed) - 7 == record.counts.slides == 2
    assert (out / "report.html").exists()


def test_own_sink_writes_its_file_with_the_tables(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    printed = run(repository, "own_sink.py", str(out))
    assert printed == (out / "look_first.txt").read_text()
    with (out / "fields.csv").open(newline="", encoding="utf-8-sig") as file:
        abnormal = {row["field"]: int(row["abnormal"]) for row in csv.DictReader(file)}
    counts = [line.split(" abnormal: ") for line in printed.splitlines()]
    assert {field: int(count) for count, field in counts} == abnormal
    assert [int(count) for count, _ in counts] == sorted(abnormal.values(), reverse=True)


def test_live_demo_camera_counts_every_frame(repository: Path) -> None:
    pytest.importorskip("pymmcore_plus")
    assert "'submitted'" in run(repository, "live_demo_camera.py", "1.5")


@pytest.mark.slow
def test_stop_when_sure_stops_early_and_counts_once(repository: Path) -> None:
    pytest.importorskip("pymmcore_plus")
    printed = run(repository, "stop_when_sure.py")
    fields, cells = int(printed.split()[0]), int(printed.split()[4])
    assert 2 <= fields < 36
    assert cells >= 50
    assert " 0 seen twice" not in printed


@pytest.mark.slow
def test_a_technicians_afternoon(repository: Path, tmp_path: Path) -> None:
    """Fields, a slide and a broken file; killed, resumed, read, recalled, compared."""
    printed = run(repository, "technicians_afternoon.py", str(tmp_path / "afternoon"))
    assert printed.endswith("The afternoon is over: everything was as it should be.\n")
    geojson = str(tmp_path / "afternoon" / "results" / "geojson")
    printed = run(repository, "read_geojson.py", geojson)
    assert printed.count(" objects") == 9


def test_what_qupath_would_not_read_as_meant_is_refused(repository: Path, tmp_path: Path) -> None:
    """The reader of the example can fail: each of these QuPath refuses, or takes for something
    else.
    """
    corners = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    feature = {
        "type": "Feature",
        "id": "00000000-0000-4000-8000-000000000000",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": "a: b", "color": [1, 2, 3]},
            "measurements": {"score": 0.5},
        },
    }
    read_objects = runpy.run_path(str(repository / "examples" / "read_geojson.py"))["read_objects"]
    path = tmp_path / "x.geojson"

    def read(text: str) -> list[Any]:
        path.write_text(text)
        objects: list[Any] = read_objects(path)
        return objects

    whole = json.dumps({"type": "FeatureCollection", "features": [feature]})
    [found] = read(whole)
    assert (found.names, found.color) == (("a", "b"), (1, 2, 3))
    for old, new in (
        ("FeatureCollection", "Features"),
        ('"Polygon"', '"Point"'),
        ("[0, 4], [0, 0]]", "[0, 4]]"),
        ('"detection"', '"region"'),
        ("0.5", "NaN"),
        ("0.5", '"0.5"'),
        ("[1, 2, 3]", "[1, 2, 300]"),
        ('"color": [1, 2, 3]', '"colorRGB": 66051'),
        ('{"score": 0.5}', '[{"name": "score", "value": 0.5}]'),
        ("0000-4000", "x000-4000"),
    ):
        assert old in whole
        with pytest.raises(ValueError):
            read(whole.replace(old, new))
