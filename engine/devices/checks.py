"""Checks of the arguments of ops. Each raises ValueError naming the argument, the rule and the value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import Float32, Int32, UInt8

__all__ = [
    "check_array",
    "check_at_least",
    "check_background_level",
    "check_class_count",
    "check_counts",
    "check_fraction",
    "check_frames",
    "check_levels",
    "check_pyramid_strides",
    "check_sizes",
    "check_windows",
]

_FARTHEST_PX = 1e6
_MOST_CLASSES = 16  # kMostClasses of postprocess_detections.h


def check_array(
    name: str, array: object, dtype: npt.DTypeLike, shape: tuple[int | str, ...]
) -> None:
    """A C-contiguous numpy array of this dtype and shape; a string in `shape` stands for any length."""
    expected = f"{np.dtype(dtype).name} [{', '.join(map(str, shape))}]"
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a {expected} array (got {type(array).__name__})")
    fits = len(array.shape) == len(shape) and all(
        isinstance(wanted, str) or length == wanted
        for length, wanted in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise ValueError(f"{name} must be {expected} (got {array.dtype} {list(array.shape)})")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous; pass np.ascontiguousarray({name})")


def check_frames(frames: Sequence[UInt8]) -> None:
    """Every frame is uint8 [H, W, 3] with contiguous rows."""
    for index, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
            got = getattr(frame, "dtype", type(frame).__name__)
            raise ValueError(f"frames[{index}] must be a uint8 array (got {got})")
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"frames[{index}] must be [H, W, 3] (got {list(frame.shape)})")
        if frame.strides[1:] != (3, 1) or frame.strides[0] < 3 * frame.shape[1]:
            raise ValueError(
                f"frames[{index}] must have contiguous rows (got strides {frame.strides}); "
                f"pass np.ascontiguousarray(frame)"
            )


def check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least} (got {value})")


def check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in 0..1 (got {value})")


def check_levels(name: str, levels: Sequence[float]) -> None:
    """Three grey levels 0..255."""
    if len(levels) != 3 or any(not 0 <= level <= 255 for level in levels):
        raise ValueError(f"{name} must be three grey levels 0..255 (got {tuple(levels)})")


def check_background_level(level: float | None) -> float:
    """None or 1..255. Returns it as the kernels take it: 0 for None."""
    if level is not None and not 1 <= level <= 255:
        raise ValueError(f"background_level must be None or lie in 1..255 (got {level})")
    return level or 0.0


def check_class_count(count: int) -> int:
    """How many classes the columns of class_logits stand for, background included: 2 to 16. Returns it."""
    if not 2 <= count <= _MOST_CLASSES:
        raise ValueError(f"class_logits must have 2 to {_MOST_CLASSES} columns (got {count})")
    return count


def check_sizes(name: str, sizes: Int32, count: int) -> None:
    """int32 [count, 2], heights and widths, at least 1."""
    check_array(name, sizes, np.int32, (count, 2))
    if count and sizes.min() < 1:
        row = int(np.flatnonzero((sizes < 1).any(axis=1))[0])
        raise ValueError(f"{name} must be at least 1 (got {sizes[row].tolist()} in row {row})")


def check_counts(name: str, counts: Int32, count: int, most: int) -> None:
    """int32 [count], 0..most."""
    check_array(name, counts, np.int32, (count,))
    if count and (counts.min() < 0 or counts.max() > most):
        raise ValueError(f"{name} must lie in 0..{most} (got {counts.tolist()})")


def check_pyramid_strides(strides_px: Sequence[int], level_count: int) -> None:
    """One power of two for each level, doubling from level to level."""
    if len(strides_px) != level_count:
        raise ValueError(
            f"strides_px needs one stride for each of {level_count} levels (got {tuple(strides_px)})"
        )
    first = strides_px[0]
    if (
        first < 1
        or first & (first - 1)
        or list(strides_px) != [first << level for level in range(level_count)]
    ):
        raise ValueError(
            f"strides_px must be powers of two that double from level to level (got {tuple(strides_px)})"
        )


def check_windows(windows: Float32, frame_index: Int32, frame_count: int) -> None:
    """float32 [R, 4] windows that are not empty, and the frame of each, int32 [R]."""
    check_array("windows", windows, np.float32, ("R", 4))
    check_array("frame_index", frame_index, np.int32, (len(windows),))
    if not len(windows):
        return
    bad = ~(
        (np.abs(windows) <= _FARTHEST_PX).all(axis=1)  # False for NaN too
        & (windows[:, 2] > windows[:, 0])
        & (windows[:, 3] > windows[:, 1])
    )
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"windows must be finite x0 < x1, y0 < y1, within ±{_FARTHEST_PX:.0f} px "
            f"(got {windows[row].tolist()} in row {row})"
        )
    if frame_index.min() < 0 or frame_index.max() >= frame_count:
        raise ValueError(
            f"frame_index must lie in 0..{frame_count - 1} "
            f"(got {int(frame_index.min())}..{int(frame_index.max())})"
        )
