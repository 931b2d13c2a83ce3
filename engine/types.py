"""What travels along the path: frames in, regions and field results out. Arrays with shape, dtype, unit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rbc_engine.cells import CellCounts, count_cells
from rbc_engine.errors import ImageError

if TYPE_CHECKING:
    from rbc_engine.scale import CanvasFit

__all__ = [
    "Decoded",
    "FieldRef",
    "FieldResult",
    "FileStamp",
    "Float32",
    "Frame",
    "Int32",
    "RegionFlag",
    "Regions",
    "SlideRef",
    "TileCounts",
    "UInt8",
]

UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


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


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """One image of a smear.

    pixels: uint8 [H, W, 3], RGB, C-contiguous: a numpy array, or pixels that a decoder left in the memory of the GPU
        `pixels.device_id` (`shape`, `dtype`, and `to_host` for a copy).
    slide, field: where it came from; `field` is unique within a slide.
    pixel_um: width of a pixel in µm, None if unknown.
    canvas: where it lies on the detector's canvas, for a tile of a slide, whose scale does not go by its own size;
        None for the rule of fit_canvas.
    """

    pixels: Any
    slide: str = ""
    field: str = ""
    pixel_um: float | None = None
    canvas: CanvasFit | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        known = isinstance(pixels, np.ndarray) or self.device_id is not None
        if not known or pixels.dtype != np.uint8:
            got = getattr(pixels, "dtype", type(pixels).__name__)
            raise ImageError(f"pixels must be a uint8 array (got {got}); scale to 0..255 first")
        if len(pixels.shape) != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ImageError(f"pixels must have shape [H, W, 3] (got {list(pixels.shape)})")
        if self.device_id is None and not pixels.flags.c_contiguous:
            object.__setattr__(self, "pixels", np.ascontiguousarray(pixels))

    @property
    def device_id(self) -> int | None:
        """Which GPU's memory holds the pixels; None for the host's."""
        number: int | None = getattr(self.pixels, "device_id", None)
        return number

    def on_host(self) -> Frame:
        """The frame with its pixels as a numpy array."""
        if self.device_id is None:
            return self
        return dataclasses.replace(self, pixels=self.pixels.to_host())

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    def __repr__(self) -> str:
        return f"Frame({self.slide!r}, {self.field!r}, {self.width}x{self.height} px)"


@dataclass(frozen=True)
class FileStamp:
    """What tells a file from an earlier version of it: its size, and when it was last modified, ns since 1970."""

    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp | None:
        """None if there is no such file, or its time is none that 64 bits hold."""
        try:
            found = path.stat()
        except (OSError, ValueError):
            return None
        if not -(2**63) < found.st_mtime_ns < 2**63:
            return None
        return cls(found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, kw_only=True)
class FieldRef:
    """One image to be read: its slide, its name within the run, and its file."""

    slide: str
    field: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class SlideRef(FieldRef):
    """A whole slide, to be read tile by tile: one field of its run, as large as the slide."""


@dataclass(frozen=True, kw_only=True)
class TileCounts:
    """The tiles of a whole slide: those that were run, and those left out because they show nothing but background."""

    run: int
    blank: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Decoded:
    """What a source hands on for one FieldRef: the frame, or why there is none (exactly one of the two)."""

    ref: FieldRef
    frame: Frame | None = None
    error: str | None = None
    seconds: float = 0.0
    """Time spent reading and decoding."""


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
        show (rbc_engine.stages.cell_scale); else None.
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
