"""What every source speaks of: the entries of a run, and their order."""

from __future__ import annotations

import re

from rbc_engine.types.frames import Decoded, FieldRef

__all__ = ["Entry", "entry_ref", "field_order"]

Entry = FieldRef | Decoded

_DIGITS = re.compile("([0-9]+)")


def entry_ref(entry: Entry) -> FieldRef:
    return entry.ref if isinstance(entry, Decoded) else entry


def field_order(ref: FieldRef) -> tuple[object, ...]:
    """By slide, then field, in natural order: the order of a run's tables."""
    return (_natural(ref.slide), ref.slide, _natural(ref.field), ref.field)


def _natural(path: str) -> list[list[str | int]]:
    """Sort key in which numbers compare by value: text and number alternate in each part of the path."""
    return [
        [int(run) if i % 2 else run for i, run in enumerate(_DIGITS.split(part.casefold()))]
        for part in path.split("/")
    ]
