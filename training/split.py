"""Which fields train and which judge: split by smear group, never by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.training.datasets.base import Dataset, LabelledField

__all__ = ["split_by_group"]


def split_by_group(
    dataset: Dataset, *, validation_share: float, seed: int
) -> tuple[list[LabelledField], list[LabelledField]]:
    """Cuts a dataset into training and validation fields that share no smear.

    Groups are dealt one by one, those with the rarest types first, to the side that is further from its share of
    the types they hold. A group that holds most of a type goes to training unless its other types outweigh that.
    A validation group that shares images with a training group is on neither side.
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
        # The field count rides along as the last column, so that groups without labels are dealt too.
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
    judge = [field for field in dataset.fields if field.group in validation - tied]
    return train, judge


def _type_counts(
    fields: Sequence[LabelledField], group: str, types: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    counts = np.zeros(types + 1, np.int64)
    for field in fields:
        if field.group == group:
            counts[:types] += field.types[field.known].sum(axis=0)
            counts[types] += 1
    return counts
