"""`rbc-engine bench`, run as users run it; its JSON, never its times."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rbc_engine.bench.instruments.fields import check_size, render_fields
from rbc_engine.bench.settings import PEERS, Size, parse_peers, parse_sizes
from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack, find_pack

_SPREAD = {"median", "q1", "q3", "min", "max", "n"}


def bench(*arguments, cwd, expect=0):
    done = subprocess.run(
        [sys.executable, "-m", "rbc_engine", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == expect, done.stderr
    return done


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """One short bench with everything but peers that need minutes."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench(
        *(
            "--short",
            "--fields",
            2,
            "--repeats",
            2,
            "--sizes",
            "320x240,20x20",
            "--peers",
            "onnxruntime,torch-tensorrt",
        ),
        *(
            "--regions-per-field",
            16,
            "--scaling",
            "--scaling-fields",
            20,
            "--plots",
            "--out",
            "out",
            "--json",
        ),
        cwd=folder,
    )
    printed = json.loads(done.stdout)
    assert printed == json.loads((folder / "out" / "bench.json").read_text())
    for name in ("latency", "stages", "throughput"):
        assert (folder / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(
        ["bench.json", "latency.png", "stages.png", "throughput.png"]
    )
    return printed, folder


@pytest.mark.slow
def test_report_has_its_keys(report):
    got, _ = report
    assert set(got) == {
        *(
            "schema",
            "program",
            "pack",
            "machine",
            "engine",
            "settings",
            "warm_up",
            "limits",
            "end_to_end",
        ),
        *("stages", "bottleneck", "peers", "sweep", "scaling", "plan", "gaps"),
    }
    assert got["schema"] == 1
    assert got["pack"]["name"] == "chula12"
    assert got["machine"]["cores_used"] == len(os.sched_getaffinity(0))
    assert got["settings"]["fields_from"] == "rendered"
    assert got["engine"]["precision"] in ("fp32", "bf16", "int8")


@pytest.mark.slow
def test_end_to_end_adds_up(report):
    entry = report[0]["end_to_end"]["320x240"]
    for source in ("memory", "disk"):
        one = entry[source]
        assert set(one["fields_per_s"]) == _SPREAD
        rates = one["fields_per_s"]
        assert 0 < rates["min"] <= rates["q1"] <= rates["median"] <= rates["q3"] <= rates["max"]
        assert rates["n"] == 2
        cells = one["regions"] / one["fields"]
        assert one["regions_per_s"]["median"] == pytest.approx(rates["median"] * cells)
        assert 0 < one["counted"]["cpu_busy"] <= 1.1
        assert one["counted"]["peak_bytes"] > 2**27
    latency = entry["latency"]
    assert latency["p50_ms"] <= latency["p95_ms"] <= latency["p99_ms"] <= max(latency["samples_ms"])


@pytest.mark.slow
def test_stages_account_for_the_wall_time(report):
    got = report[0]["stages"]
    names = [part["name"] for part in got["parts"]]
    assert {"decode", "network A", "roi_align", "crop_resize", "classifier", "call"} <= set(names)
    for part in got["parts"]:
        assert part["share"] == pytest.approx(part["seconds"] / got["wall_seconds"])
        if part["limit_seconds"] is not None and part["seconds"]:
            assert part["of_limit"] == pytest.approx(part["limit_seconds"] / part["seconds"])
    assert sum(part["share"] for part in got["parts"]) + got["idle"] >= 0.999
    worst = max(got["parts"], key=lambda part: part["seconds"])
    assert report[0]["bottleneck"]["part"] == worst["name"]
    for network in ("network A", "network B", "classifier"):
        assert next(part for part in got["parts"] if part["name"] == network)["flops"] > 1e8


@pytest.mark.slow
def test_peers_are_measured_or_left_out_with_a_reason(report):
    peers = report[0]["peers"]
    assert set(peers) == {"onnxruntime", "torch-tensorrt"}
    assert "GPU" in peers["torch-tensorrt"]["left_out"]
    one = peers["onnxruntime"]
    assert one["ratio"] == one["ratio_spread"]["median"] > 0
    assert one["agreement"]["found"] >= 0.95


@pytest.mark.slow
def test_scaling_and_gaps(report):
    got = report[0]
    curves = {curve["name"]: curve for curve in got["scaling"]}
    assert set(curves) == {"fields", "fields, without networks", "regions per field", "cores"}
    assert [point["size"] for point in curves["fields"]["points"]] == [10, 20]
    assert curves["fields"]["fit"]["exponent"] > 0
    assert len(curves["cores"]["points"]) >= 1
    # Virtual machines hide the counter of watts.
    gap = curves["cores"]["gap"]
    assert gap is None or gap.startswith("watts: not available")
    assert len(got["plan"]["plans"]) == 3
    assert any("size 20x20 is skipped" in gap for gap in got["gaps"])
    assert any(gap.startswith("GPU: not available") for gap in got["gaps"])


@pytest.mark.slow
def test_report_tells_no_paths(report):
    got, folder = report
    text = json.dumps(got)
    assert str(folder) not in text
    assert "/tmp" not in text


@pytest.mark.slow
def test_out_in_use_is_refused_at_once(report):
    done = bench("--out", "out", cwd=report[1], expect=1)
    assert "already has a bench.json; pass --overwrite" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--device", "gpu"), "--device must be"),
        (("--precision", "fp12"), "--precision must be one of"),
        (("--sizes", "640"), "--sizes must be a list of WIDTHxHEIGHT"),
        (("--sizes", "20x20,9000x480"), "its sides must lie in 32..8192 px"),
        (("--peers", "friends"), "--peers may name"),
        (("--plots",), "--plots needs --out"),
        (("--data", "nothing"), "does not exist"),
    ],
)
def test_wrong_usage_is_refused(arguments, why, tmp_path):
    done = bench("--short", "--fields", 1, "--repeats", 1, *arguments, cwd=tmp_path, expect=2)
    assert why in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_lists_are_parsed():
    assert parse_sizes("640x480, 1280x960,640x480") == (
        Size(width=640, height=480),
        Size(width=1280, height=960),
    )
    assert parse_peers("none") == parse_peers("") == ()
    assert parse_peers("all") == PEERS
    assert parse_peers("compiled,reference,compiled") == ("compiled", "reference")
    with pytest.raises(UsageError):
        parse_sizes("")


def test_sizes_that_the_detector_cannot_take_are_reported():
    settings = Pack.open(find_pack("chula12")).manifest.detector
    assert check_size(Size(width=640, height=480), settings) is None
    assert "cut the image into fields" in check_size(Size(width=8000, height=64), settings)
    assert "32..8192" in check_size(Size(width=0, height=0), settings)


def test_rendered_fields_come_again_under_other_names(tmp_path):
    got = render_fields(tmp_path / "f", Size(width=96, height=64), count=12, cells=2)
    assert len({ref.field for ref in got.refs}) == 12
    assert got.decoded[0].frame.pixels is got.decoded[10].frame.pixels
    assert got.bytes == sum(path.stat().st_size for path in (tmp_path / "f").iterdir()) / 12
    names = [item.ref.field for item in got.repeated(30)]
    assert len(set(names)) == 30
