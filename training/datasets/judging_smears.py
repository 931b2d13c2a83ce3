"""Which smears of a dataset judge a pack, and what has to be said about the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import Dataset, LabelledField

__all__ = ["choose_fields", "held_out_fields", "in_pack_order", "warn_of_training"]


def held_out_fields(pack: Pack, dataset: Dataset) -> tuple[LabelledField, ...]:
    """The fields of its dataset that no network of the pack was trained on, by its manifest."""
    groups = _listed(pack, "held_out_smear_groups")
    images = _listed(pack, "held_out_images")
    return tuple(f for f in dataset.fields if f.group in groups or f.path.name in images)


def _listed(pack: Pack, note: str) -> set[str]:
    names = str(pack.manifest.training.get(note, ""))
    return {name.strip() for name in names.split(",") if name.strip()}


def choose_fields(
    pack: Pack, dataset: Dataset, *, groups: Sequence[str] | None, held_out: bool
) -> tuple[LabelledField, ...]:
    """The fields of the named groups, of those the pack held out, or all.

    Raises UsageError if groups are missing, both choices are made, or the pack held nothing out of these data.
    """
    if groups is not None and held_out:
        raise UsageError("--groups and --held-out both choose smear groups; give one of them")
    if held_out:
        trained_on = pack.manifest.training.get("dataset")
        if trained_on != dataset.name or not held_out_fields(pack, dataset):
            raise UsageError(
                f"--held-out: pack {pack.name} names no smear group or image of {dataset.name} that was held out of its "
                f"training (its dataset: {trained_on or 'unknown'}); name groups with --groups, or judge by all data"
            )
        chosen = held_out_fields(pack, dataset)
    else:
        chosen = dataset.fields if groups is None else _of_groups(dataset, groups)
    if not any(len(field.boxes) for field in chosen):
        raise UsageError(
            f"none of the {len(chosen)} fields to judge by has a region; choose other groups, or label some cells"
        )
    return chosen


def _of_groups(dataset: Dataset, groups: Sequence[str]) -> tuple[LabelledField, ...]:
    there = {field.group for field in dataset.fields}
    if not groups or (missing := sorted(set(groups) - there)):
        raise UsageError(
            f"--data has no smear group {', '.join(missing) if groups else 'without a name'}; "
            f"it has {', '.join(sorted(there))}"
        )
    return tuple(field for field in dataset.fields if field.group in groups)


def in_pack_order(
    pack: Pack, dataset: Dataset, fields: Sequence[LabelledField]
) -> tuple[tuple[LabelledField, ...], str | None]:
    """The fields with the columns of their types in the order of the pack's, and why types are not judged, if so.

    A type of the pack that these data never label is held by no region.
    """
    strangers = sorted(set(dataset.types) - set(pack.types))
    reason = None
    if not dataset.types:
        reason = "types are not judged: these data have none"
    elif strangers:
        reason = f"types are not judged: the pack does not know {', '.join(strangers)}"
    elif not any(field.known.any() for field in fields):
        reason = "types are not judged: in no region does every cell have a label"
    if reason is not None:
        return tuple(fields), reason
    columns = [pack.types.index(name) for name in dataset.types]
    return tuple(_rearranged(field, columns, len(pack.types)) for field in fields), None


def _rearranged(field: LabelledField, columns: list[int], types: int) -> LabelledField:
    held = np.zeros((len(field.types), types), bool)
    held[:, columns] = field.types
    return replace(field, types=held)


def warn_of_training(pack: Pack, dataset: Dataset, fields: Sequence[LabelledField]) -> list[str]:
    """What the pack owes to the very smears that judge it."""
    if pack.manifest.training.get("dataset") != dataset.name:
        return []
    unseen = {field.path for field in held_out_fields(pack, dataset)}
    held_out = sum(field.path in unseen for field in fields)
    warnings = []
    if trained_on := len(fields) - held_out:
        warnings.append(
            f"the pack was trained on {trained_on} of these {len(fields)} images, so that the figures are too "
            f"good; --held-out judges by the others alone, where the pack names them"
        )
    if _listed(pack, "held_out_images"):
        warnings.append(
            "the pack was trained on other images of the same smears: on smears that it never saw it is less good"
        )
    if held_out:
        warnings.append(
            f"the score threshold and the caller of a pack are fitted to the images held out of its networks' training, "
            f"{held_out} of which are among these: average precisions and types do not depend on them, but the "
            f"caller's figures are too good; the pack's manifest has them cross-validated by smear"
        )
    return warnings
