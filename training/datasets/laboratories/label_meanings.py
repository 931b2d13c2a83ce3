"""Tell what the labels of a folder of boxes mean without a collection that says so."""

from __future__ import annotations

import re
from pathlib import Path

from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.formats.boxes_file import USUAL_NAMES, read_boxes
from rbc_engine.training.datasets.laboratories.base import KINDS, PLATELET, RED, WHITE_CELL
from rbc_engine.training.datasets.laboratories.collection import UNKNOWN
from rbc_engine.training.datasets.type_names import IGNORED, read_type_names

__all__ = ["read_meanings"]

_OTHER_KINDS = {
    "wbc": KINDS[WHITE_CELL],
    "white_cell": KINDS[WHITE_CELL],
    "platelet": KINDS[PLATELET],
    "platelets": KINDS[PLATELET],
    "artefact": "artefact",
}


def read_meanings(folder: Path) -> dict[str, str]:
    """Return what each label of a folder's boxes means, one of KINDS or "unknown".

    Types, and what types.toml calls untyped, are red cells; of what it ignores, or without it, wbc,
    white_cell, platelet(s) and artefact are these, and anything else is unknown.

    Raises UsageError that lists every fault.
    """
    faults = Faults()
    images, _ = read_boxes(folder, faults)
    names = read_type_names(folder, faults, without_file=USUAL_NAMES)
    labels = {cell.label: cell.place for image in images for cell in image.cells}
    if names is not None:
        names.check(labels.items(), faults)
    faults.raise_if_any(folder)
    assert names is not None
    return {
        label: _OTHER_KINDS.get(re.sub(r"[\s-]+", "_", label.lower()), UNKNOWN)
        if names.code(label) == IGNORED
        else KINDS[RED]
        for label in labels
    }
