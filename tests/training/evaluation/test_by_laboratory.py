"""The table by laboratory: counts of fields worked out by hand, the same held-out fields as in
training, and a run of the shipped pack on rendered laboratories.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rbc_engine.cli import app
from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.laboratories.collection import find_collection
from rbc_engine.training.datasets.laboratories.judged import JudgedField
from rbc_engine.training.datasets.laboratories.load import load_fields
from rbc_engine.training.datasets.laboratories.sides import split_laboratories
from rbc_engine.training.evaluation.laboratories.by_laboratory import HeldOut, read_laboratories
from rbc_engine.training.evaluation.laboratories.laboratory_table import MEASURES
from rbc_engine.training.evaluation.laboratories.tally import Share, tally
from rbc_engine.training.workspace import Workspace
from rbc_engine.types.cells import Cells
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldFlag, FieldResult

from ..laboratories.fake_laboratories import edit_boxes, first_rows, write_laboratories

NONE = np.zeros((0, 4), np.float32)


def square(x: float, y: float, side: float = 20.0) -> list[float]:
    return [x, y, x + side, y + side]


def field(boxes, kinds, *, unknown=(), unlabelled=()) -> JudgedField:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    kinds = np.array(kinds, np.uint8)
    red = boxes[kinds == Kind.RED]
    return JudgedField(
        laboratory="here",
        path=Path("a.png"),
        group="a",
        frame_hw=(200, 300),
        boxes=boxes,
        kinds=kinds,
        unknown=np.array(unknown, np.float32).reshape(-1, 4),
        unlabelled=np.array(unlabelled, np.float32).reshape(-1, 4),
        centres=(red[:, :2] + red[:, 2:]) / 2,
        complete=True,
    )


def result(boxes, *, kinds=None, abnormal=None, flags=None) -> FieldResult:
    """Each box is a region of one cell."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    kinds = np.zeros(count, np.uint8) if kinds is None else np.array(kinds, np.uint8)
    abnormal = np.zeros(count, bool) if abnormal is None else np.array(abnormal, bool)
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    regions = Regions(
        boxes=boxes,
        scores=scores,
        kinds=kinds,
        probabilities=np.zeros((count, 2), np.float32),
        has=np.zeros((count, 2), bool),
        abnormal_p=abnormal.astype(np.float32),
        abnormal=abnormal,
        flags=np.zeros(count, np.uint8) if flags is None else np.array(flags, np.uint8),
        cells_low=np.ones(count, np.int32),
        cells_high=np.ones(count, np.int32),
        cells=Cells(
            boxes=boxes, scores=scores, kinds=kinds, region=np.arange(count, dtype=np.int32)
        ),
    )
    return FieldResult(slide="s", field="a", regions=regions)


def counts(labelled: JudgedField, found: FieldResult, **given):
    options = {"of_cells": True, "unsure": True, "healthy": True, "middle": False, **given}
    return tally(labelled, found, **options)


def test_cells_found_missed_and_false() -> None:
    labelled = field(
        # Found, missed, two that touch (one found), one at the border, not found.
        [square(20, 20), square(60, 20), square(100, 20), square(112, 20), square(0, 100)],
        [0, 0, 0, 0, 0],
        unknown=[square(200, 100, 40)],
        unlabelled=[square(20, 150, 30)],
    )
    found = counts(
        labelled,
        result(
            [
                square(22, 20),  # the first
                square(100, 20),  # the third
                square(150, 20),  # nothing there
                square(210, 110),  # labelled unknown
                square(25, 155),  # foreground that nobody labelled
                square(0, 150),  # at the border
            ],
            flags=[0, 0, 0, 0, RegionFlag.UNSURE, RegionFlag.BORDER],
        ),
    )
    assert found.isolated_found == Share(hits=1, items=2)
    assert found.centres_hit == Share(hits=2, items=5)
    # Missed: the second and the fourth; false: on nothing, and on unlabelled foreground.
    assert found.cell_errors == Share(hits=4, items=4)
    assert found.cells == 4
    assert found.cells_right.tolist() == [True, True, False]
    assert found.extra_regions == Share(hits=2, items=5)
    assert found.unsure == Share(hits=1, items=5)
    assert found.healthy_abnormal == Share(hits=0, items=5)


@pytest.mark.parametrize(
    ("found", "kinds", "red", "white"),
    [
        pytest.param([square(50, 50, 40)], [Kind.RED], 1, 0, id="called red"),
        pytest.param([square(50, 50, 40)], [Kind.WHITE_CELL], 0, 1, id="found"),
        pytest.param([square(20, 20, 120)], [Kind.RED], 1, 0, id="in a red clump"),
        pytest.param([square(55, 55, 38)] * 2, [Kind.WHITE_CELL, Kind.RED], 1, 1, id="both"),
        pytest.param(
            [square(50, 50, 40), square(20, 20, 120)],
            [Kind.WHITE_CELL, Kind.RED],
            0,
            1,
            id="found, and within the box of red cells around it",
        ),
        pytest.param([square(160, 50)], [Kind.RED], 0, 0, id="missed"),
    ],
)
def test_a_white_cell(found, kinds, red, white) -> None:
    counted = counts(field([square(50, 50, 40)], [Kind.WHITE_CELL]), result(found, kinds=kinds))
    assert counted.white_cells_red == Share(hits=red, items=1)
    assert counted.white_cells_found == Share(hits=white, items=1)


def test_healthy_donors_by_their_whole_red_cells() -> None:
    boxes = [square(20, 20), square(60, 20), square(140, 90), square(0, 90), square(200, 150)]
    found = result(
        boxes,
        kinds=[0, 0, 0, 0, Kind.PLATELET],
        abnormal=[True, False, True, True, False],
        flags=[0, 0, 0, RegionFlag.BORDER, 0],
    )
    labelled = field(NONE, [])
    assert counts(labelled, found).healthy_abnormal == Share(hits=2, items=3)
    # What is in the middle is no red cell.
    assert counts(labelled, found, middle=True).healthy_abnormal == Share(hits=1, items=2)
    assert counts(labelled, found, healthy=False).healthy_abnormal == Share()


def test_what_was_not_measured_counts_for_no_field() -> None:
    plain = result([square(20, 20)])
    assert counts(field(NONE, []), plain).unfamiliar == Share()
    told = replace(plain, unfamiliar_distance=3.0, uncovered=0.1, flags=FieldFlag.UNFAMILIAR)
    counted = counts(field(NONE, []), told, unsure=False)
    assert counted.unfamiliar == Share(hits=1, items=1)
    assert counted.uncovered == Share(hits=0, items=1)
    assert counted.unsure == Share()


def test_nothing_found_and_nothing_there() -> None:
    counted = counts(field(NONE, []), result(NONE))
    assert counted.isolated_found == counted.white_cells_red == counted.extra_regions == Share()
    counted = counts(field([square(20, 20)], [0]), result(NONE))
    assert counted.cell_errors == Share(hits=1, items=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laboratories") / "data"
    folder.mkdir()
    write_laboratories(folder, smears=6)
    # A copy stays on the side of the image that it is a copy of.
    white = folder / "labs/white"
    name = next(f"a{n}.png" for n in range(99) if zlib.crc32(f"a{n}.png".encode()) % 3 == 0)
    (white / "images" / name).write_bytes((white / "images/white-0.png").read_bytes())
    edit_boxes(white, lambda content: {**content, name: content["white-0.png"]})
    return folder


def test_the_held_out_fields_are_those_of_the_training(data: Path) -> None:
    collection = find_collection(str(data / "fake.toml"))
    entries = collection.to_train()
    loaded = load_fields(entries, data, threads=1, log=lambda line: None)
    sides = split_laboratories(loaded, split="smears", validation_share=0.35, seed=1)
    trained = frozenset(entry.name for entry in entries)
    read = read_laboratories(
        collection,
        data,
        held_out=HeldOut(trained=trained, validation_share=0.35, split_seed=1),
        threads=1,
        log=lambda line: None,
    )
    judged = {f.path: f for laboratory in read for f in laboratory.fields}
    there = {path for path, f in judged.items() if f.laboratory != "forbidden"}
    assert there == {f.path for f in sides.held_out}
    assert [f.laboratory for f in sides.held_out].count("white") == 2
    for expected in sides.held_out:
        here = judged[expected.path]
        assert here.group == expected.group
        if expected.laboratory != "donors":  # their cells are guesses, which judge nothing
            np.testing.assert_array_equal(here.boxes, expected.boxes)
            np.testing.assert_array_equal(here.kinds, expected.kinds)
    # One that was not trained on is measured whole, or as far as the limit.
    assert sum(f.laboratory == "forbidden" for f in judged.values()) == 2
    few = read_laboratories(
        collection,
        data,
        held_out=HeldOut(trained=frozenset()),
        limit=2,
        threads=1,
        log=lambda line: None,
    )
    assert [len(laboratory.fields) for laboratory in few] == [2] * 5


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", "chula12", *map(str, arguments)])


def refused(*arguments: object) -> str:
    exception = invoke(*arguments).exception
    assert isinstance(exception, UsageError), exception
    return str(exception)


def test_a_table_with_a_row_for_each_laboratory(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {"validation_share": 0.35, "split": "smears", "seed": 0}
    Workspace(tmp_path).begin(
        "data", {"format": "collection", "datasets": [{"name": "white"}], **options}
    )
    run = invoke(
        *("--data", data, "--collection", data / "fake.toml", "--work", tmp_path),
        *("--limit", 1, "--without", "typed", "--out", out),
    )
    assert run.exit_code == 0, run.exception
    table = json.loads((out / "laboratories.json").read_text())
    rows = {row["name"]: row for row in table["laboratories"]}
    assert {name: row["use"] for name, row in rows.items()} == {
        "white": "held out",
        "plain": "all",
        "donors": "all",
        "forbidden": "all",
    }
    assert all(set(row["measures"]) == set(MEASURES) for row in rows.values())
    assert rows["plain"]["measures"]["isolated_found"]["value"] >= 0.5
    # A laboratory without white cells, or without labels, has no number there: neither 0 nor NaN.
    assert rows["plain"]["measures"]["white_cells_red"]["value"] is None
    assert rows["donors"]["measures"]["isolated_found"]["value"] is None
    assert rows["donors"]["measures"]["healthy_abnormal"]["value"] is not None
    worst = table["summary"]["isolated_found"]
    values = [row["measures"]["isolated_found"]["value"] for row in rows.values()]
    values = [value for value in values if value is not None]
    assert worst["worst"] == min(values)
    assert worst["mean"] == pytest.approx(sum(values) / len(values))
    text = (out / "laboratories.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| plain")]
    assert len(lines) == 1
    assert "–" in lines[0]
    assert "nan" not in text.lower()


def test_a_folder_of_boxes_alone(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "A Stranger's"
    (folder / "images").mkdir(parents=True)
    plain = data / "labs/plain"
    (folder / "images/plain-0.png").write_bytes((plain / "images/plain-0.png").read_bytes())
    content = json.loads((plain / "boxes.json").read_text())
    (folder / "boxes.json").write_text(json.dumps({"plain-0.png": content["plain-0.png"]}))
    out = tmp_path / "out"
    run = invoke("--data", folder, "--format", "boxes", "--out", out)
    assert run.exit_code == 0, run.exception
    (row,) = json.loads((out / "laboratories.json").read_text())["laboratories"]
    assert row["name"] == "a-stranger-s"
    assert row["fields"] == 1
    assert row["measures"]["isolated_found"]["value"] >= 0.5
    assert (out / "evaluation.json").is_file()


def test_what_is_refused(data: Path, tmp_path: Path) -> None:
    collection = ["--collection", data / "fake.toml"]
    assert "either --format" in refused("--data", data)
    assert "either --format" in refused("--data", data, *collection, "--format", "boxes")
    assert "--limit" in refused("--data", data, "--format", "boxes", "--limit", 3)
    assert "--held-out" in refused("--data", data, *collection, "--held-out")
    assert "--only" in refused("--data", data, *collection, "--only", "nobody")
    share = ["--validation-share", 0, "--without", "forbidden"]
    assert "held out" in refused("--data", data, *collection, *share)

    workspace = Workspace(tmp_path / "work")
    workspace.begin("data", {"format": "chula12"})
    assert "collection" in refused("--data", data, *collection, "--work", tmp_path / "work")

    strange = tmp_path / "strange.toml"
    text = (data / "fake.toml").read_text()
    strange.write_text(text.replace('rbc = "red" }', 'rbc = "lymphocyte" }', 1))
    assert "which no pack has" in refused("--data", data, "--collection", strange)


def test_boxes_that_are_not_finite_are_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labs/forbidden"
    (folder / "images").mkdir(parents=True)
    for path in (data / "labs/forbidden/images").iterdir():
        (folder / "images" / path.name).write_bytes(path.read_bytes())
    (folder / "boxes.json").write_text((data / "labs/forbidden/boxes.json").read_text())
    edit_boxes(folder, lambda content: first_rows(content)[0].__setitem__(1, float("nan")))
    collection = ["--collection", data / "fake.toml", "--only", "forbidden"]
    assert "four finite numbers" in refused("--data", tmp_path, *collection)
    edit_boxes(folder, lambda content: first_rows(content)[0].__setitem__(1, 10.0))
    edit_boxes(folder, lambda content: first_rows(content)[0].__setitem__(4, "mystery"))
    assert "mystery" in refused("--data", tmp_path, *collection)
