"""What a frame tells without a network: its light, its lit part, and how large a red cell is on it.

The frame is shrunk to some 360 px a side. Otsu's threshold (1979, IEEE Trans. SMC 9:62, eq. 18) parts cells from
background, and again below itself where dark nuclei pulled it up; then it is set at half the density of cells. Oval
components clear of the border tell the size of a cell where there are enough of them. Where cells touch, overlap or
are cut off, their outlines tell it: each stretch of an outline that lies on a circle (least squares, Kasa 1976, IEEE
Trans. Instrum. Meas. 25:8) gives a diameter. White cells and platelets are left out by their density. Where few
outlines agree, the light is evened by a quadratic through the background, and fainter cells are sought; where cells are
tiny, the frame is looked at again at a finer scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rbc_engine import _kernels
from rbc_engine.devices.checks import check_frames
from rbc_engine.types.arrays import UInt8

__all__ = ["CellSizeFrom", "FieldMeasure", "measure_field"]

CellSizeFrom = Literal["none", "round", "outlines"]
_SIZE_FROM: tuple[CellSizeFrom, ...] = ("none", "round", "outlines")
_Rgb = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class FieldMeasure:
    """One frame, measured. Lengths are in px of the frame; a size is the root of the area of a cell's box.

    cell_px: the median red cell; None where nothing looks like cells.
    size_from: where cell_px came from: `round` components or the `outlines` of cells that touch; `none`.
    confidence: 0..1, share of all places on outlines that lie on a circle within a quarter of cell_px. Over 0.3 where
        cells lie apart, 0.1 to 0.3 for crowds, oval cells and close-ups of white cells; under 0.1 cell_px is a guess.
    round_count, round_px, round_spread: oval components clear of the border: how many, their median size (None without
        one), half the distance between its quartiles over the median. Larger ones weigh more, so that platelets do not
        decide.
    arc_count, arc_px, arc_spread: the same of the arcs on outlines, whose size is a diameter; a cell has many.
    lit_box: x0 y0 x1 y1 of the part that shows a smear; all of the frame where nothing surrounds it.
    lit_share: 0..1, share of the frame that is lit.
    surround: whether the frame shows a black or white surround, as the round view of an eyepiece has.
    background: grey level of each channel between the cells.
    density: mean optical density (base 10) of the red cells in each channel; below 0 where they are brighter.
    foreground: 0..1, share of the lit part that cells cover.
    edge_px: width of a cell's edge, from the background's density to the cell's; None without cells. No edge seems
        sharper than two to three times shrunk_by.
    shrunk_by: frame px per px at which it was measured, at least 1.
    """

    cell_px: float | None
    size_from: CellSizeFrom
    confidence: float
    round_count: int
    round_px: float | None
    round_spread: float
    arc_count: int
    arc_px: float | None
    arc_spread: float
    lit_box: tuple[int, int, int, int]
    lit_share: float
    surround: bool
    background: _Rgb
    density: _Rgb
    foreground: float
    edge_px: float | None
    shrunk_by: float


def measure_field(frame: UInt8) -> FieldMeasure:
    """Measures a frame: in a few milliseconds, and the same frame always the same. Other threads run meanwhile.

    frame: uint8 [H, W, 3], RGB, its pixels contiguous within a row.

    Raises ValueError naming the argument at fault.
    """
    check_frames([frame])
    found = _kernels.measure_field(frame)
    x0, y0, x1, y1 = found["lit_box"]
    return FieldMeasure(
        cell_px=found["cell_px"] or None,
        size_from=_SIZE_FROM[found["size_from"]],
        confidence=found["confidence"],
        round_count=found["round_count"],
        round_px=found["round_px"] or None,
        round_spread=found["round_spread"],
        arc_count=found["arc_count"],
        arc_px=found["arc_px"] or None,
        arc_spread=found["arc_spread"],
        lit_box=(x0, y0, x1, y1),
        lit_share=found["lit_share"],
        surround=found["surround"],
        background=_rgb(found["background"]),
        density=_rgb(found["density"]),
        foreground=found["foreground"],
        edge_px=found["edge_px"] or None,
        shrunk_by=found["scale"],
    )


def _rgb(values: list[float]) -> _Rgb:
    red, green, blue = values
    return red, green, blue
