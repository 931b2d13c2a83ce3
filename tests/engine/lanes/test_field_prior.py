"""What the cells of a field say of each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from scipy.optimize import brentq
from scipy.special import expit, logit

from rbc_engine.engine import Engine
from rbc_engine.lanes.stages.call import Caller, types_held
from rbc_engine.lanes.stages.field_prior import FieldPrior, informative_regions
from rbc_engine.packs.manifest import FieldPriorSettings, Manifest
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.images.decode import read_image
from rbc_engine.types.regions import RegionFlag, Regions

TYPES = 4
FREQUENCIES = (0.5, 0.3, 0.2, 0.05)
SETTINGS = FieldPriorSettings(frequencies=FREQUENCIES, cells=10.0)


def slowly(
    probabilities: npt.NDArray[np.float32], informative: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """One field, region by region, each offset found by bisection."""
    trained = np.array(FREQUENCIES)
    before = np.clip(probabilities.astype(float), 1e-6, 1 - 1e-6)
    after = before
    for _ in range(5):
        seen = sum(
            (row for row, counts_here in zip(after, informative, strict=True) if counts_here),
            np.zeros(TYPES),
        )
        common = (seen + SETTINGS.cells * trained) / (informative.sum() + SETTINGS.cells)
        rows = []
        for row in before:
            shifted = logit(row) + np.log(common / trained)
            offset = brentq(lambda c, z=shifted, n=row.sum(): expit(z - c).sum() - n, -60, 60)
            rows.append(expit(shifted - offset))
        after = np.array(rows)
    return after


fields = st.lists(st.integers(0, 8), min_size=1, max_size=4)


@st.composite
def batches(draw: st.DrawFn):
    counts = draw(fields)
    shape = (sum(counts), TYPES)
    p = draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    return p, draw(hnp.arrays(np.bool_, shape[:1])), counts


@given(batches())
@settings(deadline=None)
def test_it_is_what_bisection_finds(batch) -> None:
    p, informative, counts = batch
    got = FieldPrior(SETTINGS)(p, informative, counts)
    assert got.dtype == np.float32
    assert got.shape == p.shape
    begin = 0
    for count in counts:
        here = slice(begin, begin + count)
        begin += count
        if count:
            np.testing.assert_allclose(got[here], slowly(p[here], informative[here]), atol=2e-5)


@given(batches())
@settings(deadline=None)
def test_each_field_is_by_itself_and_a_region_holds_as_many_types_as_before(batch) -> None:
    p, informative, counts = batch
    prior = FieldPrior(SETTINGS)
    together = prior(p, informative, counts)
    np.testing.assert_allclose(together.sum(axis=1), p.sum(axis=1), atol=5e-5)
    begin = 0
    for count in counts:
        here = slice(begin, begin + count)
        begin += count
        np.testing.assert_array_equal(prior(p[here], informative[here], [count]), together[here])


@given(batches())
@settings(deadline=None)
def test_a_region_that_does_not_tell_changes_no_other(batch) -> None:
    p, informative, counts = batch
    other = np.where(informative[:, None], p, np.float32(0.25))
    prior = FieldPrior(SETTINGS)
    np.testing.assert_array_equal(
        prior(p, informative, counts)[informative], prior(other, informative, counts)[informative]
    )


def test_a_field_like_the_training_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    p = rng.random((50, TYPES)).astype(np.float32)
    trained = p.astype(np.float64).mean(axis=0)
    prior = FieldPrior(FieldPriorSettings(frequencies=tuple(trained), cells=20.0))
    np.testing.assert_allclose(prior(p, np.ones(50, np.bool_), [50]), p, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_smear_with_another_mix_of_types_is_classified_better(seed: int) -> None:
    """Cells whose true probabilities are known: Gaussian features, two types of them alike."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0], [3.0, 0.0], [3.6, 1.2], [0.0, 3.0]])
    trained = np.array([0.4, 0.25, 0.25, 0.1])
    there = np.array([0.1, 0.85, 0.03, 0.02])
    truth = rng.choice(TYPES, 80, p=there)
    features = centres[truth] + rng.normal(size=(80, 2))
    density = np.exp(-((features[:, None] - centres) ** 2).sum(axis=2) / 2)

    def posterior(mix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        joint = density * mix
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))

    plain, known = posterior(trained), posterior(there)
    prior = FieldPrior(FieldPriorSettings(frequencies=tuple(trained), cells=20.0))
    corrected = prior(plain.astype(np.float32), np.ones(80, np.bool_), [80])

    def surprise(p: npt.NDArray[np.floating]) -> float:
        return float(-np.log(p[np.arange(80), truth]).mean())

    gained = surprise(plain) - surprise(corrected)
    assert gained > 0.25 * (surprise(plain) - surprise(known))
    right = [(p.argmax(axis=1) == truth).mean() for p in (plain, corrected, known)]
    assert right[0] + 0.03 < right[1] < right[2]


def test_a_rare_cell_that_is_sure_stays() -> None:
    """One schistocyte among eighty normal cells is what a technician looks for."""
    p = np.full((81, TYPES), 0.01, np.float32)
    p[:80, 0] = 0.97
    p[80, 2] = 0.97
    corrected = FieldPrior(SETTINGS)(p, np.ones(81, np.bool_), [81])
    assert corrected[80].argmax() == 2
    assert corrected[80, 2] > 0.8


def test_cut_cells_and_unsure_detections_tell_nothing() -> None:
    scores = np.array([0.9, 0.9, 0.4, 0.5], np.float32)
    border = np.array([False, True, False, False])
    assert informative_regions(scores, border).tolist() == [True, False, False, True]


def test_a_region_without_numbers_spoils_no_other() -> None:
    p = np.random.default_rng(0).random((20, TYPES)).astype(np.float32)
    spoilt = p.copy()
    spoilt[3, 1] = np.nan
    others = np.arange(20) != 3
    every = np.ones(20, np.bool_)
    prior = FieldPrior(SETTINGS)
    expected = prior(p, others, [20])
    np.testing.assert_array_equal(prior(spoilt, every, [20])[others], expected[others])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (
            {"frequencies": [0.5, 0.5], "cells": 20.0},
            "field_prior.frequencies needs one number per type",
        ),
        ({"frequencies": [0.0] + [0.5] * 11, "cells": 20.0}, "frequencies"),
        ({"frequencies": [float("nan")] + [0.5] * 11, "cells": 20.0}, "frequencies"),
        ({"frequencies": [0.5] * 12, "cells": 0.5}, "cells"),
        ({"frequencies": [0.5] * 12, "cells": float("inf")}, "cells"),
    ],
)
def test_a_pack_with_an_impossible_one_is_refused(wrong: dict[str, object], named: str) -> None:
    values = Pack.open(find_pack("chula12")).manifest.model_dump(by_alias=True)
    values["classifier"]["field_prior"] = wrong
    with pytest.raises(ValidationError, match=named):
        Manifest.model_validate(values)


def test_without_regions_nothing_is_called() -> None:
    nothing = np.zeros((0, TYPES), np.float32)
    assert FieldPrior(SETTINGS)(nothing, np.zeros(0, np.bool_), [0, 0]).shape == (0, TYPES)


def analyze(path: Path, *, field_prior: bool) -> Regions:
    with Engine.open("chula12", device="cpu", precision="fp32", field_prior=field_prior) as engine:
        regions = engine.analyze(read_image(path, name=path.name)).regions
    assert regions is not None
    return regions


def test_an_engine_corrects_what_it_says_of_each_region_by_itself(repository: Path) -> None:
    path = sorted((repository / "samples" / "mixed-1").iterdir())[0]
    alone, corrected = analyze(path, field_prior=False), analyze(path, field_prior=True)
    np.testing.assert_array_equal(corrected.boxes, alone.boxes)
    with Engine.open("chula12", device="cpu", precision="fp32") as engine:
        assert engine.field_prior is not None, "the shipped pack has one"
        informative = informative_regions(alone.scores, alone.flags & RegionFlag.BORDER != 0)
        expected = engine.field_prior(alone.probabilities, informative, [len(alone.boxes)])
        pack = engine.pack
    np.testing.assert_allclose(corrected.probabilities, expected, atol=1e-5)
    assert np.abs(corrected.probabilities - alone.probabilities).max() > 0.1
    settled = pack.manifest.classifier
    np.testing.assert_array_equal(
        corrected.has, types_held(corrected.probabilities, settings=settled)
    )
    np.testing.assert_array_equal(corrected.abnormal_p, Caller(pack)(corrected.probabilities))


def test_a_run_says_whether_it_corrected(repository: Path, tmp_path: Path) -> None:
    source = repository / "samples" / "mixed-1"
    command = [sys.executable, "-m", "rbc_engine", "run", source, "--out", tmp_path / "r"]
    options = [
        "--no-field-prior",
        "--formats",
        "only",
        "--precision",
        "fp32",
        "--quiet",
        "--limit",
        1,
    ]
    subprocess.run([*map(str, [*command, *options])], check=True, timeout=300)
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["settings"]["field_prior"] is False
    table = pq.read_table(tmp_path / "r" / "regions.parquet")
    alone = analyze(source / table["field"][0].as_py(), field_prior=False)
    names = [name for name in table.column_names if name.startswith("p_")]
    written = np.stack([table[name].to_numpy() for name in names], axis=1)
    np.testing.assert_allclose(written, alone.probabilities, atol=1e-5)
