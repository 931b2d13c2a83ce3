"""The paper's tables and figures, against their definitions, by command on rendered smears."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from typer.testing import CliRunner

from rbc_engine.cli.models.reproduce import app
from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.formats.table import load_dataset
from rbc_engine.training.fit.region_set import load_regions
from rbc_engine.training.recipes import CHULA12
from rbc_engine.training.reproduce.figures.field_figure import Verdict, compare_regions
from rbc_engine.training.reproduce.folds import deal_groups
from rbc_engine.training.reproduce.separation import cut_by_watershed
from rbc_engine.training.reproduce.unet import CANVAS_PX, compose_clumps
from rbc_engine.types.regions import Regions

from ..datasets.test_split import dataset, field

rows = st.lists(
    st.tuples(st.sampled_from("pqrstuvw"), st.lists(st.integers(0, 2), min_size=1, max_size=6)),
    min_size=2,
    max_size=25,
)


@given(rows, st.integers(2, 4), st.integers(0, 99), st.booleans())
def test_every_smear_is_held_out_once(rows, folds, seed, tie):
    data = dataset(rows)
    groups = sorted({f.group for f in data.fields})
    if tie and len(groups) > 1:
        data = replace(data, same_smear=((groups[0], groups[-1]),))
    smears = len(groups) - (tie and len(groups) > 1)
    if smears < folds:
        with pytest.raises(UsageError, match="--folds must be at least 2, and at most"):
            deal_groups(data, folds=folds, seed=seed)
        return
    dealt = deal_groups(data, folds=folds, seed=seed)
    assert sorted(group for fold in dealt for group in fold) == groups
    assert dealt == deal_groups(data, folds=folds, seed=seed)
    if tie:
        assert any({groups[0], groups[-1]} <= set(fold) for fold in dealt)


def test_folds_share_out_a_type():
    data = dataset([(f"g{index:02}", [index % 3] * 4) for index in range(30)])
    folds = deal_groups(data, folds=5, seed=0)
    assert len(folds) == 5
    for fold in folds:
        held = sum(f.types.sum(axis=0) for f in data.fields if f.group in fold)
        assert held.tolist() == [8, 8, 8]


def discs(*centres, radius=12):
    y, x = np.mgrid[:CANVAS_PX, :CANVAS_PX]
    return np.any([(x - cx) ** 2 + (y - cy) ** 2 < radius**2 for cx, cy in centres], axis=0)


@pytest.mark.parametrize(
    "centres", [[(60, 60)], [(50, 60), (70, 60)], [(40, 60), (60, 62), (80, 60)]]
)
def test_watershed_cuts_overlapping_discs(centres):
    mask = discs(*centres)
    labels = cut_by_watershed(mask, peak_distance_px=9)
    assert ((labels > 0) == mask).all()
    assert labels.max() == len(centres)
    assert {int(labels[y, x]) for x, y in centres} == set(range(1, len(centres) + 1))
    assert cut_by_watershed(mask, peak_distance_px=100).max() == 1


def test_composed_clumps_hold_a_core_a_cell(synthetic):
    loaded = load_dataset(synthetic, data_format="synthetic")
    regions = load_regions(loaded.fields, short_side_px=240)
    single = replace(
        regions,
        **{
            name: getattr(regions, name)[regions.cells == 1]
            for name in ("frame_index", "canvas_scales", "boxes", "types", "cells", "groups")
        },
    )
    canvases, cores, cells = compose_clumps(
        single, 60, settings=CHULA12.classifier, rng=np.random.default_rng(0)
    )
    assert canvases.shape == (60, 3, CANVAS_PX, CANVAS_PX)
    assert np.isfinite(canvases).all()
    counts = np.array([ndimage.label(core)[1] for core in cores])
    assert set(cells.tolist()) == {1, 2, 3, 4, 5}
    # A chain that bends back on itself may lay a cell over another, or leave the canvas.
    assert (counts == cells).mean() > 0.7
    assert (counts[cells <= 2] == cells[cells <= 2]).mean() > 0.9
    # Cells are darker than what lies around them.
    assert canvases[:, 1][cores].mean() < canvases[:, 1][:, :4].mean()


def test_the_verdict_on_a_region():
    found = Regions.by_area(
        boxes=np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [70, 70, 80, 80]], "f4"),
        scores=np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        probabilities=np.zeros((4, 3), np.float32),
        has=np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]], bool),
        abnormal_p=np.zeros(4, np.float32),
        abnormal=np.zeros(4, bool),
        flags=np.zeros(4, np.uint8),
    )
    truth = replace(
        field(0, "g", [0, 0, 2, 1]),
        boxes=np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], "f4"),
        known=np.array([True, True, False, True]),
    )
    verdicts, missed = compare_regions(found, truth)
    assert verdicts == [Verdict.RIGHT, Verdict.WRONG, Verdict.UNCOMPARED, Verdict.WRONG]
    np.testing.assert_array_equal(missed, truth.boxes[3:])


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


COMMON = ["--format", "synthetic", "--threads", "1"]
SMALL = ["--folds", "3", "--trunk", "resnet18", "--stages", "32:64", "--resamples", "100"]


@pytest.mark.slow
def test_table1_and_figure6(synthetic, tmp_path):
    at = ["--data", synthetic, "--work", tmp_path / "work", "--out", tmp_path / "out", *COMMON]
    first = invoke("table1", *at, *SMALL, "--only", 0)
    assert first.exit_code == 0, first.exception
    table = json.loads((tmp_path / "out" / "table1.json").read_text())
    assert table["finished_folds"] == [0]
    again = invoke("table1", *at, *SMALL)
    assert again.exit_code == 0, again.exception
    assert "fold 0, model A: finished before" in again.output
    table = json.loads((tmp_path / "out" / "table1.json").read_text())
    loaded = load_dataset(synthetic, data_format="synthetic")
    cells = np.concatenate([f.cells for f in loaded.fields])
    for model in "AB":
        parts = table["models"][model]
        assert parts["all"]["regions"] == len(cells)
        assert parts["single_cell"]["regions"] == (cells == 1).sum()
        assert parts["several_cells"]["regions"] == (cells >= 2).sum()
    figure = invoke("figure6", *at, "--folds", 3, "--count", 3)
    assert figure.exit_code == 0, figure.exception
    clumps = json.loads((tmp_path / "out" / "figure6.json").read_text())["clumps"]
    assert len(clumps) == 3
    assert all(clump["cells"] >= 2 for clump in clumps)
    other = invoke("table1", *at, *SMALL, "--seed", 1)
    assert isinstance(other.exception, UsageError)


@pytest.mark.slow
def test_figure8_and_detectors(synthetic, tmp_path):
    at = ["--data", synthetic, "--out", tmp_path / "out", *COMMON]
    at += ["--folds", 3, "--resamples", 100]
    result = invoke("figure8", *at, "--steps", 2)
    assert result.exit_code == 0, result.exception
    figure = json.loads((tmp_path / "out" / "figure8.json").read_text())
    assert set(figure["methods"]) == {"watershed", "unet"}
    assert figure["methods"]["watershed"]["right_number"]["value"] > 0.3
    assert (tmp_path / "out" / "figure8.png").is_file()
    work = ["--work", tmp_path / "work", "--trunks", "resnet18", "--steps", 2]
    result = invoke("detectors", *at, *work)
    assert result.exit_code == 0, result.exception
    table = json.loads((tmp_path / "out" / "detectors.json").read_text())
    assert table["trunks"]["resnet18"]["inference_images_per_s"] > 0


@pytest.mark.slow
def test_patch_sizes(synthetic, tmp_path):
    at = ["--data", synthetic, "--out", tmp_path / "out", "--work", tmp_path / "work", *COMMON]
    share = ["--patches", 64, "--validation-share", 0.4]
    result = invoke("patch-sizes", *at, *share, "--sizes", "48,32")
    assert result.exit_code == 0, result.exception
    table = json.loads((tmp_path / "out" / "patch_sizes.json").read_text())
    assert [(row["patch_px"], row["cost"]) for row in table["rows"]] == [(32, 1.0), (48, 2.25)]
    assert all(0 <= row["single_cell_accuracy"] <= 1 for row in table["rows"])
    assert "| 48 | 2.25 |" in (tmp_path / "out" / "patch_sizes.md").read_text()
    refused = invoke("patch-sizes", *at, *share, "--sizes", "8")
    assert "--sizes must be sides of 16 to 512 px" in str(refused.exception)


@pytest.mark.slow
def test_figure7_draws_what_it_counts(tmp_path):
    from ..fake_chula import write_chula

    write_chula(tmp_path / "data", groups=1, fields_per_group=1)
    result = invoke(
        "figure7", "--data", tmp_path / "data", "--out", tmp_path / "out", "--field", "0.jpg"
    )
    assert result.exit_code == 0, result.exception
    figure = json.loads((tmp_path / "out" / "figure7.json").read_text())
    assert set(figure["counts"]) == {"right", "wrong", "missed", "uncompared"}
    assert (tmp_path / "out" / "figure7.png").is_file()


def test_wrong_options_are_refused(synthetic, tmp_path):
    at = ["--data", synthetic, "--out", tmp_path / "out", *COMMON]
    result = invoke("detectors", *at, "--work", tmp_path / "work", "--trunks", "vgg16")
    assert "--trunks must be of resnet18" in str(result.exception)
    result = invoke("figure6", *at, "--work", tmp_path / "nothing")
    assert "holds no finished fold of table1" in str(result.exception)
