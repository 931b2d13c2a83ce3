"""Store a FieldResult as a record of a journal: a JSON header and the arrays of its regions.

Check every result that is read back, from a journal or from tables: both may have been damaged
or edited.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.text import encodable
from rbc_engine.types.cells import Cells
from rbc_engine.types.frames import FileStamp
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import SCALE_SOURCES, FieldFlag, FieldResult, TileCounts

__all__ = ["check_result", "pack_result", "unpack_result"]

_MOST_PX = 1e7
_MOST_UM = 1e3
_LARGEST = 1e300
"""What no measure exceeds: finite, and so small that no sum of them overflows."""
_EVERY_FLAG = int(sum(FieldFlag))

_Layout = dict[str, tuple[type, int | None]]
"""Of each array its type, and how many numbers a row has there; None for one a type."""

_ARRAYS: _Layout = {
    "boxes": (np.float32, 4),
    "scores": (np.float32, 1),
    "kinds": (np.uint8, 1),
    "probabilities": (np.float32, None),
    "has": (np.bool_, None),
    "abnormal_p": (np.float32, 1),
    "abnormal": (np.bool_, 1),
    "flags": (np.uint8, 1),
    "cells_low": (np.int32, 1),
    "cells_high": (np.int32, 1),
}
_CELL_ARRAYS: _Layout = {
    "boxes": (np.float32, 4),
    "scores": (np.float32, 1),
    "kinds": (np.uint8, 1),
    "region": (np.int32, 1),
}


def pack_result(result: FieldResult) -> tuple[dict[str, Any], list[bytes]]:
    """Return header and arrays, without the frame. Text that is no UTF-8 is escaped."""
    header: dict[str, Any] = {
        "slide": encodable(result.slide),
        "field": encodable(result.field),
        "path": encodable(result.path),
        "width": result.width,
        "height": result.height,
        "error": None if result.error is None else encodable(result.error),
        "saturated": result.saturated,
        "um_per_px": result.um_per_px,
        "um_per_px_from": result.um_per_px_from,
        "unfamiliar_distance": result.unfamiliar_distance,
        "uncovered": result.uncovered,
        "flags": int(result.flags),
        "seconds": result.seconds,
    }
    if result.stamp is not None:
        header |= {"bytes": result.stamp.bytes, "modified_ns": result.stamp.modified_ns}
    if result.tiles is not None:
        header |= {"tiles_run": result.tiles.run, "tiles_blank": result.tiles.blank}
    if result.regions is None:
        return header, []
    regions = result.regions
    header |= {"regions": len(regions), "cells": len(regions.cells)}
    arrays = [getattr(regions, name) for name in _ARRAYS]
    arrays += [getattr(regions.cells, name) for name in _CELL_ARRAYS]
    return header, [array.tobytes() for array in arrays]


def unpack_result(header: dict[str, Any], data: bytes, *, types: int) -> FieldResult:
    """Read a result back. Raises ValueError for a record that does not fit together."""
    try:
        stamp = None
        if "bytes" in header:
            stamp = FileStamp(_whole(header, "bytes"), _whole(header, "modified_ns", signed=True))
        tiles = None
        if "tiles_run" in header:
            tiles = TileCounts(run=_whole(header, "tiles_run"), blank=_whole(header, "tiles_blank"))
        return FieldResult(
            slide=header["slide"],
            field=header["field"],
            path=header["path"],
            width=header["width"],
            height=header["height"],
            error=header["error"],
            saturated=header["saturated"],
            um_per_px=header["um_per_px"],
            um_per_px_from=header["um_per_px_from"],
            unfamiliar_distance=header["unfamiliar_distance"],
            uncovered=header["uncovered"],
            flags=FieldFlag(_whole(header, "flags")),
            seconds=header["seconds"],
            stamp=stamp,
            tiles=tiles,
            regions=_regions(data, header, types) if "regions" in header else None,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no result of a field: {error}") from error


def check_result(result: FieldResult) -> None:
    """Raise ValueError, naming the fault, for a result that no run can have made."""
    texts = (result.slide, result.field, result.path, result.error or "")
    if not all(isinstance(text, str) and encodable(text) == text for text in texts):
        raise ValueError("slide, field, path and error must be text")
    if type(result.saturated) is not bool:
        raise ValueError(f"saturated must be true or false (got {result.saturated!r:.40})")
    for name, value in (("width", result.width), ("height", result.height)):
        if type(value) is not int or not 0 <= value <= _MOST_PX:
            raise ValueError(f"{name} must lie in 0..{_MOST_PX:.0f} px (got {value!r})")
    if not _lies_within(result.seconds, _LARGEST):
        raise ValueError(f"seconds must be a number from 0 (got {result.seconds!r:.40})")
    for name, measure, most in (
        ("um_per_px", result.um_per_px, _MOST_UM),
        ("unfamiliar_distance", result.unfamiliar_distance, _LARGEST),
        ("uncovered", result.uncovered, 1.0),
    ):
        if measure is not None and not _lies_within(measure, most):
            raise ValueError(f"{name} must lie in 0..{most:g} (got {measure!r:.40})")
    if result.um_per_px == 0:
        raise ValueError("um_per_px must not be 0")
    if result.um_per_px_from not in SCALE_SOURCES:
        raise ValueError(
            f"um_per_px_from must be one of {', '.join(SCALE_SOURCES)} (got "
            f"{result.um_per_px_from!r:.40})"
        )
    stamp, tiles = result.stamp, result.tiles
    if stamp is not None and not (
        0 <= stamp.bytes < 1 << 63 and -(1 << 63) < stamp.modified_ns < 1 << 63
    ):
        raise ValueError("bytes and modified must fit into 64 bits")
    if tiles is not None and not (0 <= tiles.run < 1 << 63 and 0 <= tiles.blank < 1 << 63):
        raise ValueError("tiles must fit into 64 bits")
    if int(result.flags) not in range(_EVERY_FLAG + 1):
        raise ValueError(f"flags must lie in 0..{_EVERY_FLAG} (got {int(result.flags)})")
    if (result.error is None) != (result.regions is not None):
        raise ValueError("a field has either regions or an error")
    if result.regions is not None:
        _check_regions(result.regions)


def _lies_within(value: object, most: float) -> bool:
    """Tells whether this is a number from 0 to `most`; a NaN is none, and true and false are not."""
    return type(value) in (int, float) and 0 <= value <= most  # type: ignore[operator]


def _whole(header: dict[str, Any], name: str, *, signed: bool = False) -> int:
    """Reads a whole number from 0, or a signed one; raises ValueError for anything else."""
    value = header[name]
    if type(value) is not int or not (signed or value >= 0):
        raise ValueError(f"{name} must be a whole number (got {value!r:.40})")
    return value


def _check_regions(regions: Regions) -> None:
    for name in ("scores", "probabilities", "abnormal_p"):
        values = getattr(regions, name)
        if not ((values >= 0) & (values <= 1)).all():  # False for NaN too
            raise ValueError(f"{name} must lie in 0..1")
    for name in ("has", "abnormal"):
        if getattr(regions, name).view(np.uint8).max(initial=0) > 1:
            raise ValueError(f"{name} must be true or false")
    if regions.flags.max(initial=0) > sum(RegionFlag):
        raise ValueError(f"flags must lie in 0..{int(sum(RegionFlag))}")
    cells = regions.cells
    if not ((cells.scores >= 0) & (cells.scores <= 1)).all():
        raise ValueError("scores of cells must lie in 0..1")
    for boxes in (regions.boxes, cells.boxes):
        if not (np.abs(boxes) <= _MOST_PX).all() or not (boxes[:, 2:] >= boxes[:, :2]).all():
            raise ValueError(f"boxes must be finite x0 <= x1, y0 <= y1, within ±{_MOST_PX:.0f} px")
    if regions.kinds.max(initial=0) >= len(Kind):
        raise ValueError(f"kinds must lie in 0..{len(Kind) - 1}")
    if (cells.kinds != regions.kinds[cells.region]).any():
        raise ValueError("cells must be of the kind of their region")
    others = regions.take(~regions.red)
    if any(
        getattr(others, name).any() for name in ("probabilities", "abnormal_p", "has", "abnormal")
    ):
        raise ValueError("only red cells may have types or be abnormal")
    low, high = regions.cells_low, regions.cells_high
    if (low < 1).any() or (high < low).any() or (cells.per_region(len(regions)) > high).any():
        raise ValueError(
            "cells_low and cells_high must be 1 <= low <= high, at least as many as there are cells"
        )


def _regions(data: bytes, header: dict[str, Any], types: int) -> Regions:
    regions, begin = _unpacked(data, 0, _ARRAYS, _whole(header, "regions"), types)
    cells, begin = _unpacked(data, begin, _CELL_ARRAYS, _whole(header, "cells"), types)
    if begin != len(data):
        raise ValueError(f"{len(data)} bytes of arrays instead of {begin}")
    return Regions(**regions, cells=Cells(**cells))


def _unpacked(
    data: bytes, begin: int, layout: _Layout, count: int, types: int
) -> tuple[dict[str, Any], int]:
    """Read arrays of `count` rows from an offset on; return them and the offset after them."""
    if count > len(data):  # a row has more than a byte
        raise ValueError(f"{count} rows in {len(data)} bytes of arrays")
    arrays: dict[str, Any] = {}
    for name, (dtype, columns) in layout.items():
        width = types if columns is None else columns
        array: npt.NDArray[Any] = np.frombuffer(data, dtype, count * width, begin)
        begin += array.nbytes
        two = columns is None or columns > 1
        arrays[name] = array.reshape(count, width) if two else array
    return arrays, begin
