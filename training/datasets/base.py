"""Define what every dataset gives: fields with their regions, and what is known of the types in
each.

A region is what the detector finds: one red cell, or several that touch or overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32

__all__ = ["Dataset", "LabelledField"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledField:
    """Hold one image with its regions.

    path: the image file.
    group: fields of one group show the same smear and are never on both sides of a split.
    boxes: float32 [R, 4], x0 y0 x1 y1 in pixels of the image.
    types: bool [R, T], the types that each region holds.
    cells: int64 [R], labelled cells in each region.
    centres: float32 [N, 2], x y in pixels of every labelled cell, in a region or not.
    known: bool [R], whether `types` is complete: every cell of the region has a type.
    labelled: whether anybody labelled this field.
    """

    path: Path
    group: str
    boxes: Float32
    types: npt.NDArray[np.bool_]
    cells: npt.NDArray[np.int64]
    centres: Float32
    known: npt.NDArray[np.bool_]
    labelled: bool

    @property
    def isolated(self) -> npt.NDArray[np.bool_]:
        """Return bool [R], whether a region holds one labelled cell and no other; where `known`,
        one cell and no other.
        """
        return np.asarray(self.cells == 1)

    def __repr__(self) -> str:
        return f"LabelledField({self.path.name!r}, group {self.group}, {len(self.boxes)} regions)"


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Hold fields, and the names of the types that their labels use.

    types: T names; none if cells are only distinguished from other things.
    abnormal: those of the types that make a cell abnormal.
    notes: what a reader of the measures should know of these data, a line each.
    same_smear: pairs of groups that hold the same image, and so show one smear between them.
    """

    name: str
    types: tuple[str, ...]
    abnormal: tuple[str, ...]
    fields: tuple[LabelledField, ...]
    notes: tuple[str, ...] = ()
    same_smear: tuple[tuple[str, str], ...] = ()
