"""`rbc-engine recall`: calls from stored probabilities, against the engine's and the formulas."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rbc_engine.bench.instruments.stub_engine import stub_regions
from rbc_engine.cli import app
from rbc_engine.errors import PackError, RbcError, ResultsError, UsageError
from rbc_engine.lanes.stages.call import Caller, types_held
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.results import FieldResult


@pytest.fixture(scope="module")
def pack() -> Pack:
    return Pack.open(find_pack("chula12"))


def as_run(pack: Pack, regions):
    """As the pack's own run calls them."""
    p = regions.probabilities
    abnormal_p = Caller(pack)(p)
    return replace(
        regions,
        has=types_held(p, settings=pack.manifest.classifier),
        abnormal_p=abnormal_p,
        abnormal=abnormal_p >= np.float32(pack.manifest.caller.threshold),
    )


@pytest.fixture(scope="module")
def source(pack, tmp_path_factory):
    """A finished run of a thousand random regions, and a field that failed."""
    out = tmp_path_factory.mktemp("source") / "run"
    results = [
        FieldResult(
            slide=f"s{i % 2}", field=f"{i}", path=f"/in/{i}", width=640, height=480,
            regions=as_run(pack, stub_regions(100, types=12, seed=i)),
        )
        for i in range(10)
    ]  # fmt: skip
    results.append(FieldResult(slide="s1", field="bad", error="bad: damaged"))
    abnormal = sum(int(r.regions.abnormal.sum()) for r in results[:-1])
    with RunOutput(claim(out), pack) as output:
        for result in results:
            output.write(result)
        output.finish(
            RunRecord.of(
                pack,
                program={"version": "0"},
                settings={"limit": None},
                counts={"fields": 11, "failed": 1, "regions": 1000, "abnormal": abnormal},
                warnings=["w"],
            )
        )
    return out


def recall(*arguments: object) -> None:
    done = CliRunner().invoke(app, ["recall", *map(str, arguments), "--quiet"])
    if done.exception is not None:
        raise done.exception
    assert done.exit_code == 0


def table(folder):
    return pq.read_table(folder / "regions.parquet")


def matrix(rows, prefix, types):
    return np.stack([rows[f"{prefix}_{name}"].to_numpy() for name in types], axis=1)


def test_the_packs_own_thresholds_give_the_same_tables(source, pack, tmp_path):
    recall(
        source,
        "--out",
        tmp_path / "out",
        "--threshold",
        f"normal={pack.manifest.classifier.thresholds[0]}",
    )
    assert table(tmp_path / "out").equals(table(source))
    for name in ("fields.csv", "slides.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


def test_thresholds_and_an_abnormal_threshold(source, pack, tmp_path):
    file = tmp_path / "thresholds.toml"
    file.write_text("teardrop = 0.9\nnormal = 0\n")
    out = tmp_path / "out"
    recall(
        source,
        "--out",
        out,
        "--thresholds",
        file,
        "--threshold",
        "normal=0.7",
        "--no-at-least-one",
        "--abnormal-threshold",
        "0.25",
    )
    rows = table(out)
    p = matrix(rows, "p", pack.types)
    limits = np.array(pack.manifest.classifier.thresholds)
    limits[[pack.types.index("normal"), pack.types.index("teardrop")]] = 0.7, 0.9
    np.testing.assert_array_equal(matrix(rows, "has", pack.types), p >= limits.astype(np.float32))
    np.testing.assert_array_equal(rows["abnormal"], rows["abnormal_p"].to_numpy() >= 0.25)
    unchanged = [name for name in rows.column_names if not name.startswith("has_")]
    unchanged.remove("abnormal")
    assert rows.select(unchanged).equals(table(source).select(unchanged))
    run = json.loads((out / "run.json").read_text())
    assert run["counts"]["abnormal"] == rows["abnormal"].to_numpy().sum()
    assert run["settings"]["recall"]["thresholds"]["teardrop"] == 0.9
    assert run["settings"]["recall"]["at_least_one"] is False
    for name, sha256 in run["recalled_from"]["sha256"].items():
        assert sha256 == hashlib.sha256((source / name).read_bytes()).hexdigest()
    assert set(run["recalled_from"]["sha256"]) == {
        "run.json", "fields.csv", "regions.parquet", "cells.parquet",
    }  # fmt: skip
    assert run["recalled_from"]["pack"]["sha256"] == pack.sha256
    assert "of the run it came from: w" in run["warnings"]


def test_what_changed_is_reported(source, pack, tmp_path):
    arguments = ["recall", source, "--out", tmp_path / "out", "--threshold", "teardrop=0.9"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--no-at-least-one"])
    assert done.exit_code == 0
    printed = [line for line in done.stdout.splitlines() if line.startswith("changed: ")]
    expected = []
    for name in pack.types:
        before, now = (
            sum(table(run)[f"has_{name}"].to_pylist()) for run in (source, tmp_path / "out")
        )
        if before != now:
            expected.append(f"changed: {name} from {before} to {now} regions")
    assert printed == expected
    assert expected
    same = [
        "recall",
        source,
        "--out",
        tmp_path / "same",
        "--abnormal-threshold",
        pack.manifest.caller.threshold,
    ]
    done = CliRunner().invoke(app, [*map(str, same)])
    assert "changed: no count of any type or of abnormal regions" in done.stdout


def test_another_set_of_abnormal_types(source, pack, tmp_path):
    recall(source, "--out", tmp_path / "out", "--abnormal", "teardrop, schistocyte")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["abnormal_types"] == ["teardrop", "schistocyte"]
    rows = table(tmp_path / "out")
    chosen = ("teardrop", "schistocyte")
    np.testing.assert_array_equal(rows["abnormal"], matrix(rows, "has", chosen).any(axis=1))
    np.testing.assert_array_equal(rows["abnormal_p"], matrix(rows, "p", chosen).max(axis=1))
    assert 0 < rows["abnormal"].to_numpy().sum() < len(rows)


def other_pack(pack: Pack, folder, *, types=None, threshold=0.3):
    """The shipped pack under another name, with its types in another order."""
    text = (pack.folder / "pack.toml").read_text()
    text = text.replace('name = "chula12"', 'name = "other"')
    text = text.replace("[caller]\nthreshold = 0.5", f"[caller]\nthreshold = {threshold}")
    first = ",\n    ".join(f'"{name}"' for name in pack.types)
    then = ",\n    ".join(f'"{name}"' for name in types or pack.types[::-1])
    assert first in text
    text = text.replace(first, then, 1)
    folder.mkdir()
    for path in pack.folder.iterdir():
        if path.name != "pack.toml":
            (folder / path.name).symlink_to(path)
    (folder / "pack.toml").write_text(text)
    return folder


def test_another_packs_caller_gets_the_types_in_its_order(source, pack, tmp_path):
    other = other_pack(pack, tmp_path / "other")
    recall(source, "--out", tmp_path / "out", "--caller", other)
    rows = table(tmp_path / "out")
    expected = Caller(pack)(np.ascontiguousarray(matrix(rows, "p", pack.types[::-1])))
    np.testing.assert_array_equal(rows["abnormal_p"], expected)
    np.testing.assert_array_equal(rows["abnormal"], expected >= np.float32(0.3))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["settings"]["recall"]["caller"]["name"] == "other"
    assert any("caller of pack other" in line for line in run["warnings"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing would change"),
        (["--threshold", "normal"], "TYPE=P"),
        (["--threshold", "normal=x"], "TYPE=P"),
        (["--threshold", "normal=0.1", "--threshold", "normal=0.2"], "each TYPE once"),
        (["--threshold", "normal=nan"], "must lie in 0..1"),
        (["--threshold", "norml=0.1"], "names norml"),
        (["--abnormal", ","], "at least one type"),
        (["--abnormal", "x"], "names x"),
        (["--abnormal", "teardrop", "--abnormal-threshold", "0.5"], "leave them out"),
        (["--abnormal-threshold", "1.5"], "must lie in 0..1"),
    ],
)
def test_wrong_usage_writes_nothing(source, tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        recall(source, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_wrong_files_are_refused(source, pack, tmp_path):
    for data in (b"normal = true", b"normal = [1]", b"\xff", b"normal = 0.1\n" * 2, b"#" * 70_000):
        (tmp_path / "t.toml").write_bytes(data)
        with pytest.raises(UsageError, match=r"t\.toml"):
            recall(source, "--out", tmp_path / "out", "--thresholds", tmp_path / "t.toml")
    other = other_pack(pack, tmp_path / "other")
    with pytest.raises(PackError, match="was made with pack chula12"):
        recall(source, "--out", tmp_path / "out", "--pack", other, "--threshold", "normal=0.1")
    strange = other_pack(pack, tmp_path / "strange", types=("x", *pack.types[1:]))
    with pytest.raises(RbcError):
        recall(source, "--out", tmp_path / "out", "--caller", strange)
    with pytest.raises(UsageError, match="is RUN_DIR"):
        recall(source, "--out", source, "--threshold", "normal=0.1", "--overwrite")
    recall(source, "--out", tmp_path / "once", "--threshold", "normal=0.1")
    with pytest.raises(ResultsError, match="itself made by recall"):
        recall(tmp_path / "once", "--out", tmp_path / "out", "--threshold", "normal=0.1")
    assert not (tmp_path / "out").exists()
