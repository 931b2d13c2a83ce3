"""Find held-out fields that an earlier training may have seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.evaluation_fields import held_out_fields
from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.datasets.laboratories.sides import image_name

__all__ = ["HELD_OUT_NOTE", "LABORATORIES_NOTE", "seen_by_pack", "seen_by_training"]

LABORATORIES_NOTE = "laboratories"
"""Of a pack's notes: names of the datasets it was trained on, except the typed one."""

HELD_OUT_NOTE = "laboratories_held_out"
"""Of a pack's notes: whether some images of each were held out, by their names, as they are
here.
"""


def seen_by_training(data: Mapping[str, Any], held_out: Iterable[CellField]) -> list[str]:
    """Return the names of held-out fields that another training did not hold out.

    data: the options of its `data`, as its workspace notes them.
    """
    unseen = set(data["validation_images"])
    datasets = data.get("datasets", [{"name": "", "format": "chula12"}])
    there = {entry["name"] for entry in datasets}
    typed_there = any(entry["format"] == "chula12" for entry in datasets)
    return sorted(
        image_name(field)
        for field in held_out
        if (typed_there if field.labels is not None else field.laboratory in there)
        and image_name(field) not in unseen
    )


def seen_by_pack(pack: Pack, held_out: Sequence[CellField], typed: Dataset | None) -> list[str]:
    """Return the names of held-out fields that a pack may have been trained on.

    typed: the dataset here whose regions have types.
    """
    notes = pack.manifest.training
    seen: list[CellField] = []
    if typed is not None and notes.get("dataset") == typed.name:
        unseen = {field.path for field in held_out_fields(pack, typed)}
        seen += [f for f in held_out if f.labels is not None and f.path not in unseen]
    if not notes.get(HELD_OUT_NOTE, False):
        there = str(notes.get(LABORATORIES_NOTE, "")).split(", ")
        seen += [f for f in held_out if f.labels is None and f.laboratory in there]
    return sorted(map(image_name, seen))
