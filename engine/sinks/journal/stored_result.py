"""A FieldResult as a record of a journal: a header in JSON, and the arrays of its regions as they lie in memory.

And what must hold of every result that is read back, from a journal or from tables: both may have been damaged or edited.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.text import encodable
from rbc_engine.types.frames import FileStamp
from rbc_engine.types.results import FieldResult, Regions, TileCounts

__all__ = ["check_result", "pack_result", "unpack_result"]

_MOST_PX = 1e7
_MOST_UM = 1e3

_ARRAYS: dict[str, tuple[type, int | None]] = {
    # Of each array of Regions its type, and how many numbers a region has there; None for one a type.
    "boxes": (np.float32, 4),
    "scores": (np.float32, 1),
    "probabilities": (np.float32, None),
    "has": (np.bool_, None),
    "abnormal_p": (np.float32, 1),
    "abnormal": (np.bool_, 1),
    "flags": (np.uint8, 1),
}


def pack_result(result: FieldResult) -> tuple[dict[str, Any], list[bytes]]:
    """The header and the arrays. Text that UTF-8 cannot hold is escaped; the frame is left out."""
    header: dict[str, Any] = {
        "slide": encodable(result.slide),
        "field": encodable(result.field),
        "path": encodable(result.path),
        "width": result.width,
        "height": result.height,
        "error": None if result.error is None else encodable(result.error),
        "saturated": result.saturated,
        "um_per_px_estimated": result.um_per_px_estimated,
        "seconds": result.seconds,
    }
    if result.stamp is not None:
        header |= {"bytes": result.stamp.bytes, "modified_ns": result.stamp.modified_ns}
    if result.tiles is not None:
        header |= {"tiles_run": result.tiles.run, "tiles_blank": result.tiles.blank}
    if result.regions is None:
        return header, []
    regions = result.regions
    header["regions"] = len(regions)
    return header, [getattr(regions, name).tobytes() for name in _ARRAYS]


def unpack_result(header: dict[str, Any], data: bytes, *, types: int) -> FieldResult:
    """types: of the pack, T. Raises ValueError for a record that does not fit together."""
    try:
        stamp = None
        if "bytes" in header:
            stamp = FileStamp(int(header["bytes"]), int(header["modified_ns"]))
        tiles = None
        if "tiles_run" in header:
            tiles = TileCounts(run=int(header["tiles_run"]), blank=int(header["tiles_blank"]))
        return FieldResult(
            slide=header["slide"],
            field=header["field"],
            path=header["path"],
            width=header["width"],
            height=header["height"],
            error=header["error"],
            saturated=header["saturated"],
            um_per_px_estimated=header["um_per_px_estimated"],
            seconds=header["seconds"],
            stamp=stamp,
            tiles=tiles,
            regions=_regions(data, int(header["regions"]), types) if "regions" in header else None,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no result of a field: {error}") from error


def check_result(result: FieldResult) -> None:
    """Raises ValueError, naming what is wrong, for a result that no run can have made."""
    texts = (result.slide, result.field, result.path, result.error or "")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("slide, field, path and error must be text")
    for name, value in (("width", result.width), ("height", result.height)):
        if type(value) is not int or not 0 <= value <= _MOST_PX:
            raise ValueError(f"{name} must lie in 0..{_MOST_PX:.0f} px (got {value!r})")
    if not math.isfinite(result.seconds) or result.seconds < 0:
        raise ValueError(f"seconds must be at least 0 (got {result.seconds})")
    estimate = result.um_per_px_estimated
    if estimate is not None and not (isinstance(estimate, float) and 0 < estimate < _MOST_UM):
        raise ValueError(f"um_per_px_estimated must lie in 0..{_MOST_UM:g} µm (got {estimate!r})")
    if (result.error is None) != (result.regions is not None):
        raise ValueError("a field has either regions or an error")
    regions = result.regions
    if regions is None or not len(regions):
        return
    for name in ("scores", "probabilities", "abnormal_p"):
        values = getattr(regions, name)
        if not ((values >= 0) & (values <= 1)).all():  # False for NaN too
            raise ValueError(f"{name} must lie in 0..1")
    for name in ("has", "abnormal"):
        if getattr(regions, name).view(np.uint8).max(initial=0) > 1:
            raise ValueError(f"{name} must be true or false")
    boxes = regions.boxes
    if not (np.abs(boxes) <= _MOST_PX).all() or not (boxes[:, 2:] >= boxes[:, :2]).all():
        raise ValueError(f"boxes must be finite x0 <= x1, y0 <= y1, within ±{_MOST_PX:.0f} px")


def _regions(data: bytes, count: int, types: int) -> Regions:
    arrays: dict[str, Any] = {}
    begin = 0
    for name, (dtype, columns) in _ARRAYS.items():
        width = types if columns is None else columns
        array: npt.NDArray[Any] = np.frombuffer(data, dtype, count * width, begin)
        begin += array.nbytes
        two = columns is None or columns > 1
        arrays[name] = array.reshape(count, width) if two else array
    if begin != len(data):
        raise ValueError(f"{len(data)} bytes of arrays instead of {begin}")
    return Regions(**arrays)
