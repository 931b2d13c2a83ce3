"""Define how the detector of cells is trained."""

from __future__ import annotations

from dataclasses import dataclass

from rbc_engine.training.fit.detector import DetectorTraining

__all__ = ["CELL_CANVAS_PX", "CellDetectorTraining"]

CELL_CANVAS_PX = 30.0
"""Root of the box area of a field's median red cell on the canvas of a detector of cells."""


@dataclass(frozen=True, kw_only=True)
class CellDetectorTraining(DetectorTraining):
    """State how to train. `scale_range` of DetectorTraining is relative to the field's median cell
    at `cell_canvas_px`.

    tiled_share: of the canvases drawn from a laboratory of close-ups, those that show four.
    middle_share: of the crops, those from the middle of the field, where close-ups have their
    object.
    restain_share: of the crops, those that get the stain of another laboratory.
    strange_stain_share: of the restained crops, those whose stain is varied further, see
        vary_stain.
    pasted_share: of the canvases of laboratories without white cells, those into which some are
        pasted; of the others a quarter as many.
    jpeg_share, blur_share: of the canvases.
    colour_strength: see vary_colour.
    proposals, proposals_per_level: in training; the pack's own are for fields, which hold more
    cells.
    """

    scale_range: tuple[float, float] = (0.6, 1.6)
    rendered_share: float = 0.08
    steps: int = 4000
    cell_canvas_px: float = CELL_CANVAS_PX
    tiled_share: float = 0.8
    middle_share: float = 0.3
    restain_share: float = 0.55
    strange_stain_share: float = 0.5
    pasted_share: float = 0.45
    jpeg_share: float = 0.3
    blur_share: float = 0.3
    colour_strength: float = 1.5
    proposals: int = 400
    proposals_per_level: int = 600
