"""How often a training draws a region."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rbc_engine.training.fit.classifier import ClassifierTraining, draw_chances
from rbc_engine.training.fit.region_set import RegionSet


def make_regions(types: np.ndarray, groups: np.ndarray) -> RegionSet:
    count = len(types)
    return RegionSet(
        frames=[],
        frame_index=np.zeros(count, np.int32),
        canvas_scales=np.ones(count, np.float32),
        boxes=np.zeros((count, 4), np.float32),
        types=types,
        cells=np.ones(count, np.int64),
        groups=groups,
    )


@pytest.mark.parametrize("seed", range(5))
def test_types_and_their_smears_are_drawn_by_square_roots(seed: int) -> None:
    rng = np.random.default_rng(seed)
    types = np.zeros((60, 3), np.bool_)
    types[np.arange(60), rng.choice(3, 60, p=(0.7, 0.25, 0.05))] = True
    types[:5, 1] = True  # clumps
    groups = rng.choice(["a", "b", "c", "d"], 60, p=(0.6, 0.2, 0.15, 0.05))
    got = draw_chances(make_regions(types, groups), ClassifierTraining())

    wanted = []
    for held, group in zip(types, groups, strict=True):
        weights = []
        for name in np.flatnonzero(held):
            sizes = {g: int(types[groups == g, name].sum()) for g in set(groups)}
            of_all = math.sqrt(sum(sizes.values()))
            weights.append(of_all / sum(map(math.sqrt, sizes.values())) / math.sqrt(sizes[group]))
        wanted.append(max(weights))
    np.testing.assert_allclose(got, np.array(wanted) / sum(wanted))


def test_of_four_times_the_regions_twice_as_many_are_drawn() -> None:
    types = np.repeat(np.eye(2, dtype=np.bool_), [80, 20], axis=0)
    groups = np.array(["a"] * 64 + ["b"] * 16 + ["c"] * 20)
    chances = draw_chances(make_regions(types, groups), ClassifierTraining())
    assert chances.sum() == pytest.approx(1)
    by_smear = [chances[groups == name].sum() for name in "abc"]
    assert by_smear[0] + by_smear[1] == pytest.approx(2 * by_smear[2])
    assert by_smear[0] == pytest.approx(2 * by_smear[1])


def test_heads_alone_are_trained_on_all_regions_alike() -> None:
    types = np.repeat(np.eye(2, dtype=np.bool_), [3, 1], axis=0)
    regions = make_regions(types, np.array(["a"] * 4))
    alike = draw_chances(regions, replace(ClassifierTraining(), frozen_trunk=True))
    np.testing.assert_array_equal(alike, [0.25] * 4)
