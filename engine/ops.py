"""The kernels, with their arguments checked: one function an op.

Frames are uint8 [H, W, 3] RGB arrays whose pixels are contiguous within a row. Results are new arrays.
`threads` is how many CPU threads an op may use; a lane that owns one core passes 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rbc_engine import _kernels
from rbc_engine.types import Float32, Int32, UInt8

__all__ = ["crop_resize", "resize_letterbox"]

RGB = tuple[float, float, float]


def resize_letterbox(
    frames: Sequence[UInt8],
    resized_hw: Int32,
    *,
    canvas_hw: tuple[int, int],
    fill_rgb: tuple[int, int, int],
    threads: int = 1,
) -> UInt8:
    """Resizes frames and places each at the top left of a canvas filled with one colour.

    Plain bilinear with half-pixel centres, rounded to uint8: torchvision's GeneralizedRCNNTransform.

    frames: N arrays uint8 [H, W, 3].
    resized_hw: int32 [N, 2], height and width of each frame on its canvas, 1..canvas_hw.
    fill_rgb: grey levels 0..255.

    Returns uint8 [N, canvas height, canvas width, 3]. Raises ValueError naming the argument at fault.
    """
    _check_frames(frames)
    _check_array("resized_hw", resized_hw, np.int32, (len(frames), 2))
    height, width = canvas_hw
    if height < 1 or width < 1:
        raise ValueError(f"canvas_hw must be positive (got {canvas_hw})")
    if len(frames) and (resized_hw.min() < 1 or (resized_hw > (height, width)).any()):
        raise ValueError(
            f"resized_hw must lie in 1..canvas_hw {canvas_hw} (got {resized_hw.tolist()})"
        )
    if any(not 0 <= level <= 255 for level in fill_rgb):
        raise ValueError(f"fill_rgb must be three grey levels 0..255 (got {fill_rgb})")
    canvases = np.empty((len(frames), height, width, 3), np.uint8)
    _kernels.resize_letterbox(list(frames), resized_hw, list(fill_rgb), canvases, _threads(threads))
    return canvases


def crop_resize(
    frames: Sequence[UInt8],
    windows: Float32,
    frame_index: Int32,
    *,
    size_px: int,
    mean: RGB,
    std: RGB,
    threads: int = 1,
) -> Float32:
    """Cuts windows out of frames, resizes each to a square patch and normalises.

    Triangle filter, antialiased when shrinking (as Pillow's BILINEAR and torch's antialias=True). Pixels outside
    the frame count as `mean`, so they come out as zero.

    frames: N arrays uint8 [H, W, 3].
    windows: float32 [R, 4], x0 y0 x1 y1 in frame pixels, x1 > x0, y1 > y0, finite; may leave the frame.
    frame_index: int32 [R], 0..N-1.
    mean, std: grey levels 0..255 a channel; std > 0.

    Returns float32 [R, 3, size_px, size_px]. Raises ValueError naming the argument at fault.
    """
    _check_frames(frames)
    count = len(windows)
    _check_array("windows", windows, np.float32, (count, 4))
    _check_array("frame_index", frame_index, np.int32, (count,))
    if size_px < 1:
        raise ValueError(f"size_px must be at least 1 (got {size_px})")
    if min(std) <= 0:
        raise ValueError(f"std must be positive (got {std})")
    if count:
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
        if frame_index.min() < 0 or frame_index.max() >= len(frames):
            raise ValueError(
                f"frame_index must lie in 0..{len(frames) - 1} "
                f"(got {int(frame_index.min())}..{int(frame_index.max())})"
            )
    patches = np.empty((count, 3, size_px, size_px), np.float32)
    _kernels.crop_resize(
        list(frames), windows, frame_index, list(mean), list(std), patches, _threads(threads)
    )
    return patches


_FARTHEST_PX = 1e6


def _threads(threads: int) -> int:
    if threads < 1:
        raise ValueError(f"threads must be at least 1 (got {threads})")
    return threads


def _check_array(name: str, array: object, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    expected = f"{np.dtype(dtype).name} {list(shape)}"
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a {expected} array (got {type(array).__name__})")
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} must be {expected} (got {array.dtype} {list(array.shape)})")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous; pass np.ascontiguousarray({name})")


def _check_frames(frames: Sequence[UInt8]) -> None:
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
