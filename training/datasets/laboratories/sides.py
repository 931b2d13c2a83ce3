"""Which fields of each laboratory train and which judge."""

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
    """Fields to train on and fields to judge by.

    smears: groups of the typed dataset that judge and do not train.
    """

    train: tuple[CellField, ...]
    held_out: tuple[CellField, ...]
    smears: tuple[str, ...]


def split_laboratories(
    loaded: LaboratoryFields, *, split: str, validation_share: float, seed: int
) -> Sides:
    """Parts the fields.

    split, validation_share, seed: of the typed dataset, see split_fields. Of any other, one image in `held_out_one_in`
        is held out, or none where the share is 0.

    Raises UsageError for a split of the typed dataset with an empty side.
    """
    trains: set[Path] = set()
    judges: set[Path] = set()
    smears: set[str] = set()
    if loaded.typed is not None:
        learn, judge = split_fields(
            loaded.typed, split=split, validation_share=validation_share, seed=seed
        )
        check_sides(learn, judge, validation_share=validation_share, seed=seed)
        trains, judges = {field.path for field in learn}, {field.path for field in judge}
        smears = {field.group for field in judge} - {field.group for field in learn}
    entries = {entry.name: entry for entry in loaded.entries}

    def judging(field: CellField) -> bool:
        if field.labels is not None:
            return field.path in judges
        return validation_share > 0 and is_held_out(entries[field.laboratory], field.group)

    def training(field: CellField) -> bool:
        # A smear that shares images with another is on neither side at times.
        return field.path in trains if field.labels is not None else not judging(field)

    return Sides(
        train=tuple(filter(training, loaded.fields)),
        held_out=tuple(filter(judging, loaded.fields)),
        smears=tuple(sorted(smears)),
    )


def is_held_out(entry: DatasetEntry, group: str) -> bool:
    """Tells whether a group of images judges and does not train: by its name alone, on every machine alike.

    Not for the typed dataset, whose smears are dealt by their types.
    """
    return zlib.crc32(group.encode()) % entry.held_out_one_in == 0


def image_name(field: CellField) -> str:
    """Names a field in a workspace: of the typed dataset as a training on that dataset only does."""
    return field.path.name if field.labels is not None else f"{field.laboratory}/{field.path.name}"
