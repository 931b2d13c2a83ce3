"""`rbc-engine train` on data of a format that has no recipe of its own: what is taken from the
data, and is kept.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from rbc_engine.engine import Engine
from rbc_engine.packs.pack import Pack
from rbc_engine.sources.synthetic.field import TYPES

from ..commands import refused, train
from ..fake_datasets import HEIGHT

COMMON = ["--format", "synthetic", "--threads", "1", "--validation-share", "0.35"]
SCRATCH = ["--trunk-weights", "scratch"]
CLASSIFIER = ["classifier", "--stages", "32:32", "--classifier-trunk", "resnet18", *SCRATCH]


@pytest.fixture(scope="module")
def work(synthetic, tmp_path_factory):
    """A detector of two steps and a classifier of one."""
    folder = tmp_path_factory.mktemp("train") / "work"
    for command in (["detector", "--steps", 2, *SCRATCH], CLASSIFIER):
        result = train(*command, "--data", synthetic, "--work", folder, *COMMON)
        assert result.exit_code == 0, result.exception
    return folder


def median_cell_share(data) -> float:
    """Long side of the median region of one cell, over the short side of its field; straight from
    truth.json.
    """
    records = json.loads((data / "truth" / "truth.json").read_text())["fields"]
    boxes = [r["box"] for record in records for r in record["regions"] if r["cells"] == 1]
    return float(np.median([max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes])) / HEIGHT


def test_the_scale_is_that_of_the_cells(synthetic, work):
    recipe = json.loads((work / "training.json").read_text())["sections"]["recipe"]
    assert recipe["types"] == list(TYPES)
    cell_px = recipe["short_side_px"] * median_cell_share(synthetic)
    assert cell_px >= 27 - 0.1, "as large on the canvas as the cells of chula12, or larger"
    assert recipe["window_canvas_px"] == pytest.approx(1.7 * cell_px, rel=0.01)


def test_other_types_than_it_was_begun_with_are_refused(synthetic, work, tmp_path):
    changed = shutil.copytree(synthetic, tmp_path / "changed")
    truth = changed / "truth" / "truth.json"
    content = json.loads(truth.read_text())
    content["types"] = content["types"][::-1]
    truth.write_text(json.dumps(content))
    message = refused(*CLASSIFIER, "--data", changed, "--work", work, *COMMON)
    assert "was started with recipe " in message or "data validation_groups" in message


def test_what_cannot_be_trained_on_is_refused_before_it_begins(synthetic, tmp_path):
    at = ["--data", synthetic, "--work", tmp_path / "work"]
    everything = ["all", *at, "--out", tmp_path / "pack"]
    assert "--name must be 1 to 64 of a-z" in refused(*everything, *COMMON, "--name", "My pack")
    untyped = shutil.copytree(synthetic, tmp_path / "untyped")
    content = json.loads((untyped / "truth" / "truth.json").read_text())
    for record in content["fields"]:
        record["regions"] = []
    (untyped / "truth" / "truth.json").write_text(json.dumps(content))
    at = ["--data", untyped, "--work", tmp_path / "work", *COMMON]
    assert "have no single cell of a known type" in refused("detector", *at)
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_the_pack_is_named_and_opens(synthetic, work, tmp_path):
    out = tmp_path / "mine"
    arguments = ["--data", synthetic, "--work", work, "--out", out, "--max-false-share", 1]
    result = train("pack", *arguments, "--name", "rendered", *COMMON)
    assert result.exit_code == 0, result.exception
    pack = Pack.open(out)
    assert pack.name == "rendered"
    assert pack.types == TYPES
    assert pack.manifest.abnormal == TYPES[1:]
    assert pack.manifest.detector.um_per_canvas_px is None
    assert pack.manifest.training["dataset"] == "synthetic"
    with Engine.open(out, device="cpu", precision="fp32") as engine:
        assert engine.analyze(np.full((240, 320, 3), 200, np.uint8)).ok
