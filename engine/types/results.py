"""What came of a field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal, get_args

from rbc_engine.types.frames import Decoded, FileStamp, Frame
from rbc_engine.types.regions import Regions

__all__ = [
    "SCALE_SOURCES",
    "FieldFlag",
    "FieldResult",
    "ScaleSource",
    "TileCounts",
]

ScaleSource = Literal["given", "stated", "estimated", "assumed"]
"""Who says how wide a pixel is: the user, the file, the picture, or nobody."""
SCALE_SOURCES: tuple[ScaleSource, ...] = get_args(ScaleSource)


class FieldFlag(IntFlag):
    """Flag reasons to distrust a field."""

    UNFAMILIAR = 1
    """It is unlike what the pack was trained on."""
    UNCOVERED = 2
    """No box covers a good part of what stands out from its background."""

    def names(self) -> list[str]:
        """List the lower-case names of the flags that are set, in order of their bits."""
        return [flag.name.lower() for flag in FieldFlag if flag in self and flag.name]

    @classmethod
    def of(cls, names: str) -> FieldFlag:
        """Read names joined by ';'. Raises ValueError for one that is none."""
        flags = cls(0)
        for name in filter(None, names.split(";")):
            if name.upper() not in cls.__members__:
                raise ValueError(f"field flag {name!r:.40} is not known")
            flags |= cls[name.upper()]
        return flags


_NO_FLAGS = FieldFlag(0)


@dataclass(frozen=True, kw_only=True)
class TileCounts:
    """Count the tiles of a whole slide: those run, and those omitted as nothing but background."""

    run: int
    blank: int


@dataclass(frozen=True, eq=False, kw_only=True)
class FieldResult:
    """Hold the result of one field.

    regions: None if the field failed; `error` then says why.
    saturated: the detector filled its fixed-size output, so regions may be missing.
    um_per_px: width of a pixel in µm that the field was analysed with; None if it failed, or the
        pack does not know its own scale and nobody said. um_per_px_from: who said so.
    unfamiliar_distance: how far the field is from those that the pack was trained on; None where
        that is not measured.
    uncovered: 0..1, the share of what stands out from the background that no box covers; None where
        it is not measured.
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
    um_per_px: float | None = None
    um_per_px_from: ScaleSource = "assumed"
    unfamiliar_distance: float | None = None
    uncovered: float | None = None
    flags: FieldFlag = _NO_FLAGS
    seconds: float = 0.0
    stamp: FileStamp | None = None
    frame: Frame | None = dataclasses.field(default=None, repr=False)
    """The image itself, kept only if a sink needs it (overlays); never for a whole slide."""
    tiles: TileCounts | None = None
    """Of a whole slide; None for an image."""

    @classmethod
    def failed(cls, decoded: Decoded, error: str) -> FieldResult:
        """Make the result of a field that failed."""
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
