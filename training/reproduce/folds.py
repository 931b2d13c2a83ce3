"""Cross-validate by smear: every smear group is held out once, with its types spread over the
folds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.fit.region_set import RegionSet

__all__ = ["deal_groups", "select_regions"]


def deal_groups(dataset: Dataset, *, folds: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Deal the smear groups to folds so that each holds its share of every type; groups of one
    smear stay together.

    The known regions of each type, those of several cells, and the fields are counted. Groups that
    hold most of something come first; each goes to the fold that holds least of what it brings,
    which is the fold where the sum of squared shares, and so their variance over the folds, grows
    least. The seed breaks ties.

    Returns the sorted groups of each fold. Raises UsageError if a fold would have no known region.
    """
    smears = _smears(dataset)
    if not 2 <= folds <= len(smears):
        raise UsageError(
            f"--folds must be at least 2, and at most the number of smears, {len(smears)} (got "
            f"{folds})"
        )
    counts = _counts(dataset, smears)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    shuffled = np.random.default_rng(seed).permutation(len(smears))
    order = shuffled[np.argsort(-shares.max(axis=1)[shuffled], kind="stable")]

    held = np.zeros((folds, shares.shape[1]))
    members: list[list[int]] = [[] for _ in range(folds)]
    for smear in order:
        growth = held @ shares[smear]
        fold = min(range(folds), key=lambda k: (growth[k], len(members[k])))
        held[fold] += shares[smear]
        members[fold].append(int(smear))
    for fold, indices in enumerate(members):
        if not counts[indices, -1].any():
            raise UsageError(
                f"--folds {folds} leaves fold {fold} without a labelled region; "
                f"lower it, change --seed, or label more smears"
            )
    return tuple(
        tuple(sorted(group for index in indices for group in smears[index])) for indices in members
    )


def select_regions(regions: RegionSet, chosen: npt.NDArray[np.bool_]) -> RegionSet:
    """Return the chosen regions, bool [R], with the same frames."""
    return replace(
        regions,
        frame_index=regions.frame_index[chosen],
        canvas_scales=regions.canvas_scales[chosen],
        boxes=regions.boxes[chosen],
        types=regions.types[chosen],
        cells=regions.cells[chosen],
        groups=regions.groups[chosen],
    )


def _smears(dataset: Dataset) -> list[tuple[str, ...]]:
    """Return the groups of each smear: one, or several that hold the same image."""
    smear_of: dict[str, tuple[str, ...]] = {field.group: (field.group,) for field in dataset.fields}
    for first, second in dataset.same_smear:
        joined = tuple(sorted({*smear_of[first], *smear_of[second]}))
        smear_of.update(dict.fromkeys(joined, joined))
    return sorted(set(smear_of.values()))


def _counts(dataset: Dataset, smears: list[tuple[str, ...]]) -> npt.NDArray[np.int64]:
    """Return int64 [S, T + 3]: known regions of each type, fields, known regions of several cells,
    known regions.
    """
    types = len(dataset.types)
    counts = np.zeros((len(smears), types + 3), np.int64)
    index = {group: number for number, smear in enumerate(smears) for group in smear}
    for field in dataset.fields:
        row = counts[index[field.group]]
        row[:types] += field.types[field.known].sum(axis=0)
        row[types:] += (1, (field.cells[field.known] >= 2).sum(), field.known.sum())
    return counts
