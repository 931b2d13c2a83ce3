"""How wide a pixel is, as files state it: each standard's tags and units to µm."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from rbc_engine.text import printable

__all__ = [
    "StatedScale",
    "checked_pixel_um",
    "objective_scale",
    "ome_scale",
    "plausible_scale",
    "tiff_scale",
]

_PIXEL_UM = (0.01, 10.0)
_PLAUSIBLE_UM = (0.02, 2.0)
"""Of tags that programs fill in for printers as well: 72 dots an inch are 353 µm, 9600 are 2.6."""

_UM_PER_UNIT = {
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in"), 25_400.0),
    "Å": 1e-4,
    "pm": 1e-6,
}
_UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}
_UM_TIMES_POWER = 10.0
"""Of scanners: 0.5 µm at 20x, 0.25 at 40x."""
_POWERS = (1.0, 200.0)


class StatedScale(NamedTuple):
    """Say how wide a pixel is, in µm, and by what the file states it."""

    pixel_um: float
    by: str


def checked_pixel_um(
    widths_um: tuple[float, float], *, stated_in: str, notes: list[str]
) -> float | None:
    """Return the width of a pixel as a file states it, or None, with a note, where that cannot be.

    widths_um: along x and y. stated_in: where in the file.
    """
    low, high = _PIXEL_UM
    if not all(low <= width <= high for width in widths_um):
        shown = " x ".join(f"{width:.4g}" for width in widths_um)
        notes.append(
            f"its {stated_in} says {shown} µm per pixel, which no microscope has "
            f"({low:g}..{high:g}): ignored"
        )
        return None
    mean = (widths_um[0] + widths_um[1]) / 2
    if abs(widths_um[0] - widths_um[1]) > 0.02 * mean:
        notes.append(
            f"its pixels are not square ({widths_um[0]:.4g} x {widths_um[1]:.4g} µm): their mean "
            "is used"
        )
    return mean


def plausible_scale(widths_um: tuple[float, float], *, by: str) -> StatedScale | None:
    """Return the scale by a tag meant for printers too; None unless it is a microscope's."""
    low, high = _PLAUSIBLE_UM
    if not all(low <= width <= high for width in widths_um):
        return None
    if abs(widths_um[0] - widths_um[1]) > 0.02 * max(widths_um):
        return None
    return StatedScale(sum(widths_um) / 2, by)


def objective_scale(power: str | None, *, notes: list[str]) -> StatedScale | None:
    """Return the scale of a scan by the power of its objective; None without one."""
    try:
        value = float(power or "nan")
    except ValueError:
        value = math.nan
    if not _POWERS[0] <= value <= _POWERS[1]:
        if power is not None:
            notes.append(f"its objective power is no number ({printable(power)!r:.40}): ignored")
        return None
    return StatedScale(_UM_TIMES_POWER / value, f"objective power {value:g}")


def tiff_scale(
    tiff: Any, page: Any, *, series: int, notes: list[str], of_slide: bool = False
) -> StatedScale | None:
    """Return the scale that a TIFF states: in OME's XML, by ImageJ, or by its resolution.

    tiff: a TiffFile; page: the image's first page; series: its number. notes: is told what is
    ignored, and why. of_slide: whether the resolution is a scanner's, who writes no printer's.
    """
    if tiff.is_ome:
        found = ome_scale(str(tiff.ome_metadata or ""), series, notes)
        if found is not None:
            return found
    widths = [_width(page, tag) for tag in (282, 283)]
    if widths[0] is None or widths[1] is None:
        return None
    per_unit = (widths[0], widths[1])
    if tiff.is_imagej:
        return _imagej_scale(tiff, per_unit, notes)
    unit_um = _UM_PER_RESOLUTION_UNIT.get(int(page.tags.valueof(296, 2)))
    if unit_um is None:
        return None
    widths_um = (per_unit[0] * unit_um, per_unit[1] * unit_um)
    by = "resolution of the TIFF"
    if not of_slide:
        return plausible_scale(widths_um, by=by)
    width_um = checked_pixel_um(widths_um, stated_in="resolution", notes=notes)
    return None if width_um is None else StatedScale(width_um, by)


def ome_scale(xml: str, series: int, notes: list[str]) -> StatedScale | None:
    """Return PhysicalSizeX and Y of an image in OME's XML, which is only searched, not parsed."""
    elements = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml[: 1 << 22])
    if series >= len(elements):
        return None
    widths = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="([^"]{{1,40}})"', elements[series])
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]{{1,20}})"', elements[series])
        name = unit[1].replace("&#181;", "µ").replace("&#xB5;", "µ") if unit else "µm"
        if size is None:
            return None
        try:
            widths.append(float(size[1]) * _UM_PER_UNIT[name])
        except (ValueError, KeyError):
            notes.append(
                f"its PhysicalSize{axis} of {printable(size[1])} {printable(name)} is no length: "
                "ignored"
            )
            return None
    found = checked_pixel_um((widths[0], widths[1]), stated_in="PhysicalSizeX", notes=notes)
    return None if found is None else StatedScale(found, "PhysicalSize of OME")


def _imagej_scale(tiff: Any, per_unit: tuple[float, float], notes: list[str]) -> StatedScale | None:
    """ImageJ's resolution is in pixels a unit, and its description names the unit."""
    stated = (tiff.imagej_metadata or {}).get("unit")
    if not isinstance(stated, str) or stated.strip().lower() in ("", "pixel", "pixels", "inch"):
        return None
    name = stated.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    unit_um = _UM_PER_UNIT.get(name, _UM_PER_UNIT.get(name.lower()))
    if unit_um is None:
        notes.append(f"its unit, by ImageJ, is {printable(name)!r:.40}, no length: ignored")
        return None
    found = checked_pixel_um(
        (per_unit[0] * unit_um, per_unit[1] * unit_um), stated_in="unit of ImageJ", notes=notes
    )
    return None if found is None else StatedScale(found, "unit of ImageJ")


def _width(page: Any, tag: int) -> float | None:
    """Return the units a pixel, of a tag that states pixels a unit; None if it does not."""
    value = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) != 2 or not all(value):
        return None
    return float(value[1]) / float(value[0])
