"""Choose the smears of a dataset to measure a pack on, and state the caveats of the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import Dataset, LabelledField

__all__ = ["choose_fields", "held_out_fields", "in_pack_order", "warn_of_training"]


def held_out_fields(pack: Pack, dataset: Dataset) -> tuple[LabelledField, ...]:
    """Return the fields of its dataset on which no network of the pack was trained, by its
    manifest.
    """
    groups = _listed(pack, "held_out_smear_groups")
    images = _listed(pack, "held_out_images")
    return tuple(f for f in dataset.fields if f.group in groups or f.path.name in images)


def _listed(pack: Pack, note: str) -> set[str]:
    names = str(pack.manifest.training.get(note, ""))
    return {name.strip() for name in names.split(",") if name.strip()}


def choose_fields(
    pack: Pack, dataset: Dataset, *, groups: Sequence[str] | None, held_out: bool
) -> tuple[LabelledField, ...]:
    """Return the fields of the named groups, of those that the pack held out, or all.

    Raises UsageError if groups are missing, both choices are made, or the pack held nothing out of
    these data.
    """
    if groups is not None and held_out:
        raise UsageError("--groups and --held-out both choose smear groups; give one of them")
    if held_out:
        trained_on = pack.manifest.training.get("dataset")
        if trained_on != dataset.name or not held_out_fields(pack, dataset):
            raise UsageError(
                f"--held-out: pack {pack.name} names no smear group or image of {dataset.name} "
                f"that was held out of its training (its dataset: {trained_on or 'unknown'}); name "
                "groups with --groups, or use all data"
            )
        chosen = held_out_fields(pack, dataset)
    else:
        chosen = dataset.fields if groups is None else _of_groups(dataset, groups)
    if not any(len(field.boxes) for field in chosen):
        raise UsageError(
            f"none of the {len(chosen)} fields has a region; choose other groups, or label some "
            "cells"
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
    """Return the fields with their types in the order of the pack's, and the reason if types are
    not scored.

    A type of the pack that these data never label is held by no region.
    """
    strangers = sorted(set(dataset.types) - set(pack.types))
    reason = None
    if not dataset.types:
        reason = "types are not scored: the data have none"
    elif strangers:
        reason = f"types are not scored: the pack does not know {', '.join(strangers)}"
    elif not any(field.known.any() for field in fields):
        reason = "types are not scored: no region has a label for every cell"
    if reason is not None:
        return tuple(fields), reason
    columns = [pack.types.index(name) for name in dataset.types]
    return tuple(_rearranged(field, columns, len(pack.types)) for field in fields), None


def _rearranged(field: LabelledField, columns: list[int], types: int) -> LabelledField:
    held = np.zeros((len(field.types), types), bool)
    held[:, columns] = field.types
    return replace(field, types=held)


def warn_of_training(pack: Pack, dataset: Dataset, fields: Sequence[LabelledField]) -> list[str]:
    """Warn of smears with which the pack was made."""
    if pack.manifest.training.get("dataset") != dataset.name:
        return []
    unseen = {field.path for field in held_out_fields(pack, dataset)}
    held_out = sum(field.path in unseen for field in fields)
    warnings = []
    if trained_on := len(fields) - held_out:
        warnings.append(
            f"the pack was trained on {trained_on} of these {len(fields)} images, so the figures "
            f"are optimistic; --held-out uses only the others, if the pack names them"
        )
    if _listed(pack, "held_out_images"):
        warnings.append(
            "the pack was trained on other images of the same smears: on new smears it is less "
            "accurate"
        )
    if held_out:
        warnings.append(
            "the score threshold and the caller of a pack are fitted to the images held out of "
            f"its networks' training, {held_out} of which are among these: average precisions and "
            "types do not depend on them, but the caller's figures are optimistic; the pack's "
            "manifest has them cross-validated by smear"
        )
    return warnings
