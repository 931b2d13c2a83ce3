"""The regions of a field, each with its cells. Arrays with shape, dtype, unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntFlag

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32, Int32, UInt8
from rbc_engine.types.cells import Cells, check_arrays, count_cells
from rbc_engine.types.kinds import are_red

__all__ = ["RegionFlag", "Regions"]


class RegionFlag(IntFlag):
    """Flag reasons to distrust a region."""

    BORDER = 1
    """The box touches the edge of the field: the cell may be cut.

    In a whole slide also: joined from parts that several tiles saw, none of them the whole."""
    CLUMP = 2
    """More than one cell, likely."""
    BLURRED = 4
    """The field is out of focus, so that its regions are classified less surely."""
    UNSURE = 8
    """No type is likely: the classifier cannot place it."""

    def names(self) -> list[str]:
        """List the lower-case names of the flags that are set, in order of their bits."""
        return [flag.name.lower() for flag in RegionFlag if flag in self and flag.name]


@dataclass(frozen=True, eq=False, kw_only=True)
class Regions:
    """Hold the R regions of one field, surest first; T is the number of types of the pack.

    A region of a kind other than red has no type: its probabilities and abnormal_p are 0, has and
    abnormal false.

    boxes: float32 [R, 4], x0 y0 x1 y1 in pixels of the full-resolution image, origin top left.
    scores: float32 [R], 0..1, that there is a region of its kind.
    kinds: uint8 [R], of Kind.
    probabilities: float32 [R, T], 0..1, that the region holds a cell of each type.
    has: bool [R, T], probabilities at or over the pack's thresholds, or by its wish at least the
        likeliest type.
    abnormal_p: float32 [R], 0..1, that any cell of the region is abnormal.
    abnormal: bool [R], abnormal_p at or over the pack's threshold.
    flags: uint8 [R], bits of RegionFlag.
    cells_low, cells_high: int32 [R], the fewest and the most cells that each may hold, from 1.
    cells: those that are known one by one, of every region whose detector finds cells; else one of
        each region that holds a single cell.
    """

    boxes: Float32
    scores: Float32
    kinds: UInt8
    probabilities: Float32
    has: npt.NDArray[np.bool_]
    abnormal_p: Float32
    abnormal: npt.NDArray[np.bool_]
    flags: UInt8
    cells_low: Int32
    cells_high: Int32
    cells: Cells

    def __post_init__(self) -> None:
        count = len(self.boxes)
        types = self.probabilities.shape[-1]
        check_arrays(
            self,
            {
                "boxes": ((count, 4), np.float32),
                "scores": ((count,), np.float32),
                "kinds": ((count,), np.uint8),
                "probabilities": ((count, types), np.float32),
                "has": ((count, types), np.bool_),
                "abnormal_p": ((count,), np.float32),
                "abnormal": ((count,), np.bool_),
                "flags": ((count,), np.uint8),
                "cells_low": ((count,), np.int32),
                "cells_high": ((count,), np.int32),
            },
        )
        region = self.cells.region
        if len(region) and not (
            region[0] >= 0 and region[-1] < count and (region[1:] >= region[:-1]).all()
        ):
            raise ValueError(f"cells must be in order of their regions, of which there are {count}")

    @classmethod
    def by_area(
        cls,
        *,
        boxes: Float32,
        scores: Float32,
        probabilities: Float32,
        has: npt.NDArray[np.bool_],
        abnormal_p: Float32,
        abnormal: npt.NDArray[np.bool_],
        flags: UInt8,
        kinds: UInt8 | None = None,
    ) -> Regions:
        """Make regions of a detector that finds no cells; their number follows from area.

        A region of one cell is its own cell. kinds: None if all are red. flags: kept as they are;
        CLUMP is not set here.
        """
        if kinds is None:
            kinds = np.zeros(len(boxes), np.uint8)
        counts = count_cells(boxes, cut=(flags & RegionFlag.BORDER) > 0, kinds=kinds)
        alone = np.flatnonzero(~counts.clump)
        return cls(
            boxes=boxes,
            scores=scores,
            kinds=kinds,
            probabilities=probabilities,
            has=has,
            abnormal_p=abnormal_p,
            abnormal=abnormal,
            flags=flags,
            cells_low=counts.low,
            cells_high=counts.high,
            cells=Cells(
                boxes=boxes[alone],
                scores=scores[alone],
                kinds=kinds[alone],
                region=alone.astype(np.int32),
            ),
        )

    @classmethod
    def empty(cls, types: int) -> Regions:
        """Return no regions, of this many types."""
        return cls.by_area(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            probabilities=np.zeros((0, types), np.float32),
            has=np.zeros((0, types), np.bool_),
            abnormal_p=np.zeros(0, np.float32),
            abnormal=np.zeros(0, np.bool_),
            flags=np.zeros(0, np.uint8),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Regions]) -> Regions:
        """Concatenate parts, at least one, in order, each region with its cells."""
        begins = np.cumsum([0, *(len(part) for part in parts[:-1])])
        cells = Cells(
            **{
                field.name: np.concatenate([getattr(part.cells, field.name) for part in parts])
                for field in fields(Cells)
                if field.name != "region"
            },
            region=np.concatenate(
                [part.cells.region + begin for part, begin in zip(parts, begins, strict=True)]
            ).astype(np.int32),
        )
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _arrays()
        }
        return cls(**arrays, cells=cells)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice) -> Regions:
        """Take some regions with their cells.

        chosen: bool [R], indices in any order, or a slice.
        """
        rows = np.arange(len(self))[chosen]
        cells = self.cells.of_regions(rows, regions=len(self))
        return replace(self, **{name: getattr(self, name)[rows] for name in _arrays()}, cells=cells)

    def shifted(self, x: float, y: float) -> Regions:
        """Return the regions and cells moved by so many pixels."""
        by = np.array([x, y, x, y], np.float32)
        cells = replace(self.cells, boxes=self.cells.boxes + by)
        return replace(self, boxes=self.boxes + by, cells=cells)

    def recounted(self) -> Regions:
        """Estimate from area how many cells each region holds, as by_area does, and set CLUMP."""
        flags = self.flags & ~np.uint8(RegionFlag.CLUMP)
        cut = (flags & RegionFlag.BORDER) > 0
        clump = count_cells(self.boxes, cut=cut, kinds=self.kinds).clump
        arrays = {name: getattr(self, name) for name in _arrays() if not name.startswith("cells_")}
        arrays["flags"] = flags | clump.astype(np.uint8) * np.uint8(RegionFlag.CLUMP)
        return Regions.by_area(**arrays)

    @property
    def red(self) -> npt.NDArray[np.bool_]:
        """Return bool [R], true for regions of red cells."""
        return are_red(self.kinds)

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        types = self.probabilities.shape[1]
        return f"Regions({len(self)} regions, {len(self.cells)} cells, {types} types)"


def _arrays() -> list[str]:
    """List the attributes with one row per region."""
    return [field.name for field in fields(Regions) if field.name != "cells"]
