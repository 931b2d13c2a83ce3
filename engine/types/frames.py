"""Define the input: a frame, its origin, and the file from which it was read."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.types.arrays import UInt8

__all__ = [
    "HOST",
    "MAX_SIDE_PX",
    "MIN_SIDE_PX",
    "CanvasFit",
    "Decoded",
    "DevicePixels",
    "FieldRef",
    "FileStamp",
    "Frame",
    "Place",
    "SlideRef",
]

MIN_SIDE_PX = 32
"""Shortest side of an image: a smaller one holds no whole cell."""

MAX_SIDE_PX = 8192
"""Longest side of an image: a larger one is a whole slide, which another source reads tile by
tile.
"""


class Place(NamedTuple):
    """Say whose memory pixels lie in. kind, number: of the device, as in --device cuda:1."""

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}"


HOST = Place("host")


class DevicePixels(Protocol):
    """Hold pixels that a decoder or a camera's library left in the memory of a device.

    uint8 [H, W, 3], RGB, C-contiguous.
    """

    @property
    def place(self) -> Place: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def to_host(self) -> UInt8:
        """Copy them."""
        ...

    def __dlpack__(self, **options: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class CanvasFit:
    """Place one frame on its canvas.

    resized_hw: height and width of the frame on the canvas, at its top left.
    canvas_hw: height and width of the canvas: the next multiples of the coarsest stride.
    scale: canvas px per frame px, before rounding to whole pixels.
    """

    resized_hw: tuple[int, int]
    canvas_hw: tuple[int, int]
    scale: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """Hold one image of a smear.

    pixels: uint8 [H, W, 3], RGB, C-contiguous: a numpy array, or DevicePixels.
    slide, field: where it came from; `field` is unique within a slide.
    pixel_um: width of a pixel in µm, None if unknown. pixel_um_from: who says so: the user, or the
        file.
    canvas: where it lies on the detector's canvas, for a tile of a slide, whose scale does not go
        by its own size; None for the rule of fit_canvas.
    """

    pixels: Any
    slide: str = ""
    field: str = ""
    pixel_um: float | None = None
    pixel_um_from: Literal["given", "stated"] = "given"
    canvas: CanvasFit | None = None

    def __post_init__(self) -> None:
        pixels = self.pixels
        known = isinstance(pixels, np.ndarray) or hasattr(pixels, "place")
        if not known or pixels.dtype != np.uint8:
            got = getattr(pixels, "dtype", type(pixels).__name__)
            raise ImageError(f"pixels must be a uint8 array (got {got}); scale to 0..255 first")
        if len(pixels.shape) != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ImageError(f"pixels must have shape [H, W, 3] (got {list(pixels.shape)})")
        if self.place == HOST and not pixels.flags.c_contiguous:
            object.__setattr__(self, "pixels", np.ascontiguousarray(pixels))

    @property
    def place(self) -> Place:
        """Return whose memory holds the pixels."""
        place: Place = getattr(self.pixels, "place", HOST)
        return place

    def on_host(self) -> Frame:
        """Return the frame with its pixels as a numpy array."""
        if self.place == HOST:
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
    """Identify a version of a file by its size and when it was last modified, ns since 1970."""

    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp | None:
        """Return the stamp of a file; None if it does not exist, or its time does not fit into 64
        bits.
        """
        try:
            return cls.of_status(path.stat())
        except (OSError, ValueError):
            return None

    @classmethod
    def of_status(cls, status: os.stat_result) -> FileStamp | None:
        """Return the stamp of a file of this status; None if its time does not fit into 64 bits."""
        if not -(2**63) < status.st_mtime_ns < 2**63:
            return None
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, kw_only=True)
class FieldRef:
    """Name one image to be read: its slide, its name within the run, and its file."""

    slide: str
    field: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class SlideRef(FieldRef):
    """Name a whole slide, to be read tile by tile: one field of its run, as large as the slide."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Decoded:
    """Hold what a source makes of one FieldRef: the frame, or the reason why there is none (exactly
    one of them).
    """

    ref: FieldRef
    frame: Frame | None = None
    error: str | None = None
    seconds: float = 0.0
    """Time spent reading and decoding."""
    stamp: FileStamp | None = None
    """Of the file when these pixels were read; None if it was not read, or its time is unknown."""
