"""What a region or a cell is: a red cell, or what is none."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import UInt8

__all__ = ["KIND_LABELS", "Kind", "are_red"]


class Kind(IntEnum):
    """Number the kinds as in arrays."""

    RED = 0
    """One red cell, or several that touch."""
    WHITE_CELL = 1
    PLATELET = 2
    ARTEFACT = 3
    """Stain, dust, a scale bar: nothing of the blood."""

    @property
    def label(self) -> str:
        """Return the name in packs, tables and formats."""
        return self.name.lower()

    @classmethod
    def of(cls, label: str) -> Kind:
        """Find a kind by its label. Raises ValueError for another word."""
        if label not in KIND_LABELS:
            raise ValueError(f"a kind is one of {', '.join(KIND_LABELS)} (got {label!r:.40})")
        return cls(KIND_LABELS.index(label))


KIND_LABELS = tuple(kind.name.lower() for kind in Kind)
"""In order of their numbers."""


def are_red(kinds: UInt8) -> npt.NDArray[np.bool_]:
    """Return bool [N], true where kinds uint8 [N] are red cells."""
    return np.asarray(kinds == Kind.RED)
