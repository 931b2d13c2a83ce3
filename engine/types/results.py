"""What came of a field: its regions, and the field itself. Arrays with shape, dtype, unit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32, Int32, UInt8
from rbc_engine.types.cells import CellCounts, count_cells
from rbc_engine.types.frames import Decoded, FileStamp, Frame

__all__ = ["FieldResult", "RegionFlag", "Regions", "TileCounts"]


class RegionFlag(IntFlag):
    """What to know before trusting a region."""

    BORDER = 1
    """The box touches the edge of the field: the cell may be cut. In a whole slide also: joined from the parts that
    several tiles saw, none of them the whole."""
    CLUMP = 2
    """More than one cell, likely."""
    BLURRED = 4
    """The field is out of focus, so that its regions are classified less surely."""

    def names(self) -> list[str]:
        """Lower-case names of the flags that are set, in order of their bits."""
        return [flag.name.lower() for flag in RegionFlag if flag in self and flag.name]


@dataclass(frozen=True, kw_only=True)
class TileCounts:
    """The tiles of a whole slide: those that were run, and those left out because they show nothing but background."""

    run: int
    blank: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Regions:
    """The R regions of one field, surest first; T is the number of types of the pack.

    boxes: float32 [R, 4], x0 y0 x1 y1 in pixels of the full-resolution image, origin top left.
    scores: float32 [R], 0..1, that there is a region of red cells.
    probabilities: float32 [R, T], 0..1, that the region holds a cell of each type.
    has: bool [R, T], probabilities at or over the pack's thresholds, or by its wish at least the likeliest type.
    abnormal_p: float32 [R], 0..1, that any cell of the region is abnormal.
    abnormal: bool [R], abnormal_p at or over the pack's threshold.
    flags: uint8 [R], bits of RegionFlag.
    """

    boxes: Float32
    scores: Float32
    probabilities: Float32
    has: npt.NDArray[np.bool_]
    abnormal_p: Float32
    abnormal: npt.NDArray[np.bool_]
    flags: UInt8

    def __post_init__(self) -> None:
        count = len(self.boxes)
        types = self.probabilities.shape[-1]
        expected = {
            "boxes": ((count, 4), np.float32),
            "scores": ((count,), np.float32),
            "probabilities": ((count, types), np.float32),
            "has": ((count, types), np.bool_),
            "abnormal_p": ((count,), np.float32),
            "abnormal": ((count,), np.bool_),
            "flags": ((count,), np.uint8),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"Regions.{name} must be {np.dtype(dtype).name} {list(shape)} "
                    f"(got {array.dtype} {list(array.shape)})"
                )

    @cached_property
    def cells(self) -> CellCounts:
        """How many cells each region may hold."""
        return count_cells(self.boxes, cut=(self.flags & RegionFlag.BORDER) > 0)

    @property
    def cells_low(self) -> Int32:
        return self.cells.low

    @property
    def cells_high(self) -> Int32:
        return self.cells.high

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"Regions({len(self)} regions, {self.probabilities.shape[1]} types)"


@dataclass(frozen=True, eq=False, kw_only=True)
class FieldResult:
    """What became of one field.

    regions: None if the field failed; `error` then says why.
    saturated: the detector filled its fixed-size output, so regions may be missing.
    um_per_px_estimated: width of a pixel in µm, where none was given and the pack's own rule was far from what the cells
        show (rbc_engine.lanes.stages.cell_scale); else None.
    seconds: time spent on this field's decoding and its share of its batch.
    stamp: of the image file, from before it was read; None if that is not known.
    """

    slide: str
    field: str
    path: str = ""
    width: int = 0
    height: int = 0
    regions: Regions | None = None
    error: str | None = None
    saturated: bool = False
    um_per_px_estimated: float | None = None
    seconds: float = 0.0
    stamp: FileStamp | None = None
    frame: Frame | None = dataclasses.field(default=None, repr=False)
    """The image itself, kept only where a sink asked for it (overlays); a whole slide never has it."""
    tiles: TileCounts | None = None
    """Of a whole slide; None for an image."""

    @classmethod
    def failed(cls, decoded: Decoded, error: str) -> FieldResult:
        """Of a field that came to nothing."""
        ref = decoded.ref
        return cls(
            slide=ref.slide,
            field=ref.field,
            path=str(ref.path),
            error=error,
            seconds=decoded.seconds,
        )

    @property
    def ok(self) -> bool:
        return self.error is None
