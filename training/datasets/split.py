"""Split fields into training and held-out ones: by smear group, or by image for comparison with
published results.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.base import Dataset, LabelledField

__all__ = ["SPLITS", "check_sides", "split_by_group", "split_by_image", "split_fields"]

SPLITS = ("smears", "images", "images-of-held-out")
"""What --split may be."""


def split_fields(
    dataset: Dataset, *, split: str, validation_share: float, seed: int
) -> tuple[list[LabelledField], list[LabelledField]]:
    """Return fields to train on and held-out fields. split: one of SPLITS.

    'images-of-held-out' deals at random only the images of the smears that 'smears' holds out, so
    that a training that held out these smears may be fine-tuned.
    """
    if split == "images":
        return split_by_image(dataset, dataset.fields, validation_share=validation_share, seed=seed)
    train, held_out = split_by_group(dataset, validation_share=validation_share, seed=seed)
    if split == "images-of-held-out":
        return split_by_image(dataset, held_out, validation_share=validation_share, seed=seed)
    return train, held_out


def check_sides(
    train: Sequence[LabelledField],
    held_out: Sequence[LabelledField],
    *,
    validation_share: float,
    seed: int,
) -> None:
    """Raise UsageError if a side of a split has no labelled region; with a share of 0 nothing is
    held out.
    """
    for side, fields in (("training", train), ("held-out", held_out)):
        wanted = side == "training" or validation_share > 0
        if wanted and not any(field.known.any() for field in fields):
            raise UsageError(
                f"no {side} smear has a labelled region with --validation-share "
                f"{validation_share:g} and --seed {seed}; change them, or label more smears"
            )


def split_by_group(
    dataset: Dataset, *, validation_share: float, seed: int
) -> tuple[list[LabelledField], list[LabelledField]]:
    """Split a dataset into training and validation fields that share no smear.

    Groups are dealt one by one, those with the rarest types first, to the side that is further from
    its share of the types they hold. A group that holds most of a type goes to training unless its
    other types outweigh that. A validation group that shares images with a training group is on
    neither side.
    """
    groups = sorted({field.group for field in dataset.fields})
    counts = np.stack([_type_counts(dataset.fields, group, len(dataset.types)) for group in groups])
    totals = counts.sum(axis=0)
    share = counts / np.maximum(totals, 1)
    order = np.argsort(-share.max(axis=1), kind="stable")
    jitter = np.random.default_rng(seed).random(len(groups))
    order = order[np.argsort(-(share.max(axis=1)[order] + 0.05 * jitter[order]), kind="stable")]

    validation: set[str] = set()
    held = np.zeros_like(totals)
    for index in order:
        # The field count is the last column, so that groups without labels are dealt too.
        wanted = validation_share * totals - held
        gain = np.minimum(counts[index], np.maximum(wanted, 0)) / np.maximum(totals, 1)
        excess = np.maximum(counts[index] - np.maximum(wanted, 0), 0) / np.maximum(totals, 1)
        if gain.sum() > excess.sum():
            validation.add(groups[index])
            held += counts[index]
    train = [field for field in dataset.fields if field.group not in validation]
    tied = {
        group for pair in dataset.same_smear if not validation.issuperset(pair) for group in pair
    }
    held_out = [field for field in dataset.fields if field.group in validation - tied]
    return train, held_out


def split_by_image(
    dataset: Dataset, candidates: Sequence[LabelledField], *, validation_share: float, seed: int
) -> tuple[list[LabelledField], list[LabelledField]]:
    """Deal labelled images at random, so that fields of one smear are on both sides.

    candidates: the fields from which the held-out ones are drawn; all others are trained on.

    Such a measure shows how well a network knows smears that it was trained on, as most published
    figures do. Images of groups that share images are not held out, because one may be on both
    sides under two names.
    """
    tied = {group for pair in dataset.same_smear for group in pair}
    fields = sorted(dataset.fields, key=lambda field: field.path.name)
    named = {field.path for field in candidates}
    eligible = [
        field
        for field in fields
        if field.path in named and field.labelled and field.group not in tied
    ]
    order = np.random.default_rng(seed).permutation(len(eligible))
    held_out = [eligible[index] for index in order[: round(validation_share * len(eligible))]]
    held_out_paths = {field.path for field in held_out}
    return [field for field in fields if field.path not in held_out_paths], held_out


def _type_counts(
    fields: Sequence[LabelledField], group: str, types: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    counts = np.zeros(types + 1, np.int64)
    for field in fields:
        if field.group == group:
            counts[:types] += field.types[field.known].sum(axis=0)
            counts[types] += 1
    return counts
