"""Split the fields of each laboratory into training and held-out ones."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.datasets.laboratories.collection import DatasetEntry
from rbc_engine.training.datasets.laboratories.load import LaboratoryFields
from rbc_engine.training.datasets.split import check_sides, split_fields

__all__ = ["Sides", "image_name", "is_held_out", "split_laboratories"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sides:
    """Hold the fields to train on and the held-out ones.

    smears: held-out groups of the typed dataset.
    """

    train: tuple[CellField, ...]
    held_out: tuple[CellField, ...]
    smears: tuple[str, ...]


def split_laboratories(
    loaded: LaboratoryFields, *, split: str, validation_share: float, seed: int
) -> Sides:
    """Split the fields.

    split, validation_share, seed: of the typed dataset, see split_fields. Of any other, one image
        in `held_out_one_in` is held out, or none if the share is 0.

    Raises UsageError for a split of the typed dataset with an empty side.
    """
    trains: set[Path] = set()
    held_out_paths: set[Path] = set()
    smears: set[str] = set()
    if loaded.typed is not None:
        learn, unseen = split_fields(
            loaded.typed, split=split, validation_share=validation_share, seed=seed
        )
        check_sides(learn, unseen, validation_share=validation_share, seed=seed)
        trains, held_out_paths = {field.path for field in learn}, {field.path for field in unseen}
        smears = {field.group for field in unseen} - {field.group for field in learn}
    entries = {entry.name: entry for entry in loaded.entries}

    def is_unseen(field: CellField) -> bool:
        if field.labels is not None:
            return field.path in held_out_paths
        return validation_share > 0 and is_held_out(entries[field.laboratory], field.group)

    def training(field: CellField) -> bool:
        # A smear that shares images with another is sometimes on neither side.
        return field.path in trains if field.labels is not None else not is_unseen(field)

    return Sides(
        train=tuple(filter(training, loaded.fields)),
        held_out=tuple(filter(is_unseen, loaded.fields)),
        smears=tuple(sorted(smears)),
    )


def is_held_out(entry: DatasetEntry, group: str) -> bool:
    """Return whether a group of images is held out: by its name alone, the same on every machine.

    Not for the typed dataset, whose smears are dealt by their types.
    """
    return zlib.crc32(group.encode()) % entry.held_out_one_in == 0


def image_name(field: CellField) -> str:
    """Return the name of a field in a workspace: for the typed dataset, as in a training on that
    dataset only.
    """
    return field.path.name if field.labels is not None else f"{field.laboratory}/{field.path.name}"
