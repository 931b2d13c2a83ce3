"""Convert a camera's frames to the RGB that the engine reads: layouts, bit depths, DLPack, reused
buffers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.devices.table import adopt, place_of
from rbc_engine.errors import ImageError, UsageError
from rbc_engine.session.demosaic import BAYER_PATTERNS, demosaic
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX, MIN_SIDE_PX, DevicePixels, Place

__all__ = ["BufferPool", "PixelFormat", "RawArray", "as_array", "check_raw", "to_rgb", "usable_rgb"]

RawArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": 1}
_LAYOUTS = ("auto", *_CHANNELS, *(f"bayer_{pattern}" for pattern in BAYER_PATTERNS))
_AUTO = {1: "mono", 3: "rgb"}
_DLPACK_HOST = (1, 3)
"""DLPack's numbers for the host's memory, ordinary and pinned by CUDA."""


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """State how the pixels of a camera are to be read.

    layout: 'mono', 'rgb', 'bgr', 'rgba', 'bgra', 'bayer_rggb', 'bayer_bggr', 'bayer_grbg' or
        'bayer_gbrg'; 'auto' takes [H, W] for mono and [H, W, 3] for RGB. Mono becomes three equal
        channels, alpha is dropped, a Bayer mosaic is interpolated bilinearly (`demosaic`).
    bits: of a uint16 frame, how many of its bits the camera uses, 8..16. A value v becomes
        round(v * 255 / (2**bits - 1)); one that needs more bits makes the frame fail. It must be
        stated for uint16 frames, since a dark 16-bit image and a bright 12-bit one look alike.
    """

    layout: str = "auto"
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.layout not in _LAYOUTS:
            raise UsageError(f"layout must be one of {', '.join(_LAYOUTS)} (got {self.layout!r})")
        whole = isinstance(self.bits, int | np.integer) and not isinstance(self.bits, bool)
        if self.bits is not None and not (whole and 8 <= self.bits <= 16):
            raise UsageError(
                f"bits must be a whole number in 8..16, such as bits=12 (got {self.bits!r:.40})"
            )


def as_array(frame: object, *, places: Collection[Place] = ()) -> npt.NDArray[Any] | DevicePixels:
    """Return the frame without a copy: numpy, or DLPack in the memory of the host or of a GPU.

    places: devices' memory that can be read.

    Raises ImageError for anything else.
    """
    if isinstance(frame, np.ndarray):
        return frame
    if isinstance(frame, str | bytes | os.PathLike):
        raise ImageError(
            f"a frame is pixels, not the path of a file (got {str(frame)!r:.80}); read it first, "
            "as np.asarray(PIL.Image.open(path).convert('RGB')), or run files with run_folder"
        )
    if not hasattr(frame, "__dlpack__") or not hasattr(frame, "__dlpack_device__"):
        raise ImageError(
            f"a frame must be a numpy array or support DLPack (got {type(frame).__name__}); pass "
            "np.asarray(frame)"
        )
    kind, number = frame.__dlpack_device__()
    if kind not in _DLPACK_HOST:
        place = place_of(kind, number)
        adopted = None if place is None else adopt(frame, place, among=places)
        if adopted is not None:
            return adopted
        where = place or f"DLPack device type {kind}"
        raise ImageError(
            f"the frame lies in the memory of {where}, which this engine's device does not read; "
            f"pass a copy in host memory"
        )
    try:
        return np.from_dlpack(frame)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ImageError(f"the frame's DLPack export failed: {error}") from error


def check_raw(array: npt.NDArray[Any] | DevicePixels, pixels: PixelFormat) -> None:
    """Check what can be checked without reading the pixels. Raises ImageError with the rule, the
    value and the remedy.
    """
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"a frame must be uint8 or uint16 (got {array.dtype}); scale it to 0..255 and convert "
            "it first"
        )
    if array.dtype == np.uint16 and pixels.bits is None:
        raise ImageError(
            "a uint16 frame needs PixelFormat.bits, the bits that the camera uses (got None); "
            "state 10, 12, 14 or 16"
        )
    layout = _layout(array, pixels)
    if not isinstance(array, np.ndarray) and layout != "rgb":
        raise ImageError(
            f"a frame in the memory of a GPU must be RGB (got layout {layout}); convert it there, "
            f"or pass a copy in host memory"
        )
    channels = _CHANNELS.get(layout, 1)
    fits = len(array.shape) == 3 and array.shape[2] == channels
    if not (fits or (channels == 1 and len(array.shape) == 2)):
        wanted = "[H, W]" if channels == 1 else f"[H, W, {channels}]"
        raise ImageError(f"a frame of layout {layout} must be {wanted} (got {list(array.shape)})")
    height, width = array.shape[:2]
    if min(height, width) < MIN_SIDE_PX or max(height, width) > MAX_SIDE_PX:
        raise ImageError(
            f"a frame's sides must lie in {MIN_SIDE_PX}..{MAX_SIDE_PX} px (got {width}x{height}); "
            f"change the camera's region of interest"
        )
    if layout.startswith("bayer") and (height % 2 or width % 2):
        raise ImageError(f"a Bayer frame must have even sides (got {width}x{height})")


def usable_rgb(
    image: object, pixels: PixelFormat, *, places: Collection[Place]
) -> UInt8 | DevicePixels:
    """Return what a session would make of an image, or raise its ImageError."""
    raw = as_array(image, places=places)
    check_raw(raw, pixels)
    return to_rgb(raw, pixels) if isinstance(raw, np.ndarray) else raw


def to_rgb(raw: RawArray, pixels: PixelFormat) -> UInt8:
    """Return a checked frame as uint8 [H, W, 3] RGB, C-contiguous; the array itself if it is that
    already.

    Raises ImageError if a value needs more than the stated bits.
    """
    layout = _layout(raw, pixels)
    levels = _to_8_bits(raw, pixels.bits)
    if layout.startswith("bayer"):
        return demosaic(levels.reshape(levels.shape[:2]), layout.removeprefix("bayer_"))
    if layout == "mono":
        return np.repeat(levels.reshape(*levels.shape[:2], 1), 3, axis=2)
    if layout in ("bgr", "bgra"):
        levels = levels[..., 2::-1]
    return np.ascontiguousarray(levels[..., :3])


class BufferPool:
    """Reuse arrays once their frame has ended. May be called from any thread.

    most: how many are kept; when the camera changes its size, those of the old size go first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._free: list[RawArray] = []

    def copy(self, array: RawArray) -> RawArray:
        """Return a C-contiguous copy, which belongs to the caller until `give_back`."""
        buffer = self._take(array.shape, array.dtype)
        if buffer is None:
            buffer = np.empty(array.shape, array.dtype)
        np.copyto(buffer, array)
        return buffer

    def give_back(self, buffer: RawArray) -> None:
        """Take back a buffer of `copy`, which nobody may read any more."""
        with self._lock:
            self._free.append(buffer)
            if len(self._free) > self._most:
                self._free.pop(0)

    def _take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> RawArray | None:
        with self._lock:
            for index in range(len(self._free) - 1, -1, -1):
                if self._free[index].shape == shape and self._free[index].dtype == dtype:
                    return self._free.pop(index)
        return None


def _layout(array: npt.NDArray[Any] | DevicePixels, pixels: PixelFormat) -> str:
    if pixels.layout != "auto":
        return pixels.layout
    channels = 1 if len(array.shape) == 2 else array.shape[-1] if len(array.shape) == 3 else 0
    if channels not in _AUTO:
        raise ImageError(
            f"a frame must be [H, W] or [H, W, 3] (got {list(array.shape)}); "
            f"for another layout state PixelFormat(layout=...)"
        )
    return _AUTO[channels]


def _to_8_bits(raw: RawArray, bits: int | None) -> UInt8:
    if raw.dtype == np.uint8:
        return raw.astype(np.uint8, copy=False)
    assert bits is not None  # by check_raw
    brightest = int(raw.max())
    if brightest >> bits:
        raise ImageError(
            f"the frame's brightest value is {brightest}, which needs {brightest.bit_length()} "
            f"bits, but PixelFormat.bits is {bits}; state the bits that the camera uses"
        )
    levels: UInt8 = np.take(_levels(bits), raw)
    return levels


@lru_cache(maxsize=9)
def _levels(bits: int) -> UInt8:
    """Return uint8 [2**bits]: the level 0..255 of each value, rounded."""
    most = 2**bits - 1
    values = np.arange(most + 1, dtype=np.uint32)
    levels: UInt8 = ((values * 255 + most // 2) // most).astype(np.uint8)
    return levels
