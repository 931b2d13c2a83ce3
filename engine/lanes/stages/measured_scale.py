"""Set the scale of a frame by the size of the red cells on its picture, for a detector of cells.

A frame without µm per pixel is assumed to show as much of a smear as the pack's training fields.
Its cells are measured before a network sees it. If they are about as large as assumed, the
assumption stands: microcytic and macrocytic smears differ by no more. Otherwise the measured size
decides, and the detected cells correct it: then every field's median cell has the same size on its
patches, and macrocytes and microcytes are relative to the field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.lanes.canvas import at_border, canvas_at
from rbc_engine.lanes.measure import FieldMeasure
from rbc_engine.lanes.stages.cell_scale import Detector, Sighting
from rbc_engine.lanes.stages.detect import Detections
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.types.frames import CanvasFit, Frame
from rbc_engine.types.kinds import are_red

__all__ = ["MeasuredScale"]

# Of 143 fields of labelled smears of Chula RBC-12 and of five diseases, 98 % have measured cells of
# 0.83 to 1.21 times the assumed size, microcytic and macrocytic ones among them; of five other
# laboratories' fields, the nearest have 1.3 times.
_AS_ASSUMED = (1 / 1.28, 1.28)
# Below this FieldMeasure.confidence the size is a guess.
_CONFIDENT = 0.08
# A detector trained at 0.6 to 1.6 times its cells' size needs no better.
_CORRECT = (1 / 1.25, 1.25)
_STEPS_PER_OCTAVE = 4
_LEAST_CELLS = 4
_SURE = 0.5
# A median of detections this far from the expected size comes from boxes that are no cells.
_LARGEST_CORRECTION = 4.0


class MeasuredScale:
    """Set scales for one pack, which knows the size of its cells on the canvas."""

    def __init__(self, settings: DetectorSettings) -> None:
        if settings.cell_canvas_px is None:
            raise ValueError("the pack must state detector.cell_canvas_px")
        self._settings = settings
        self._cell_canvas_px: float = settings.cell_canvas_px

    def detect(
        self,
        frames: Sequence[Frame],
        assumed: Sequence[CanvasFit],
        measures: Sequence[FieldMeasure],
        detect: Detector,
    ) -> list[Sighting]:
        """Detect in every frame at its scale.

        assumed: the canvas of each, if its cells are as large as assumed. A frame whose scale is
        known is detected there. measures: of each.
        """
        fits = [
            self._measured(frame, fit, measure) or fit
            for frame, fit, measure in zip(frames, assumed, measures, strict=True)
        ]
        measured = [a is not b for a, b in zip(fits, assumed, strict=True)]
        found = list(detect(frames, fits))
        again: dict[int, CanvasFit] = {}
        for index, frame in enumerate(frames):
            if measured[index]:
                corrected = self._corrected(frame, assumed[index], fits[index], found[index])
                if corrected is not None:
                    again[index] = corrected
        if again:
            seen = detect([frames[index] for index in again], list(again.values()))
            for (index, fit), detections in zip(again.items(), seen, strict=True):
                if detections.wrong is not None or self._nearer(
                    frames[index], fit, detections, fits[index], found[index]
                ):
                    fits[index], found[index] = fit, detections
        return [
            self._sighting(frame, fit, detections, estimated=estimated)
            for frame, fit, detections, estimated in zip(frames, fits, found, measured, strict=True)
        ]

    def _measured(
        self, frame: Frame, assumed: CanvasFit, measure: FieldMeasure
    ) -> CanvasFit | None:
        """Return the canvas on which the measured cells have their size; None where the assumed one
        stands.
        """
        if frame.pixel_um is not None or frame.canvas is not None:
            return None
        if measure.cell_px is None or measure.confidence < _CONFIDENT:
            return None
        low, high = _AS_ASSUMED
        if low <= measure.cell_px * assumed.scale / self._cell_canvas_px <= high:
            return None
        return self._canvas(frame, assumed, self._cell_canvas_px / measure.cell_px)

    def _corrected(
        self, frame: Frame, assumed: CanvasFit, fit: CanvasFit, found: Detections
    ) -> CanvasFit | None:
        """Return the canvas on which the detected cells have their size; None if they have it."""
        ratio = self._ratio(frame, fit, found)
        low, high = _CORRECT
        if ratio is None or low <= ratio <= high:
            return None
        if not 1 / _LARGEST_CORRECTION <= ratio <= _LARGEST_CORRECTION:
            return None
        canvas = self._canvas(frame, assumed, fit.scale / ratio)
        if canvas is None or math.isclose(canvas.scale, fit.scale, rel_tol=0.01):
            return None
        return canvas

    def _nearer(
        self,
        frame: Frame,
        fit: CanvasFit,
        found: Detections,
        before_fit: CanvasFit,
        before: Detections,
    ) -> bool:
        now, then = self._ratio(frame, fit, found), self._ratio(frame, before_fit, before)
        assert then is not None
        return now is not None and abs(math.log(now)) < abs(math.log(then))

    def _sighting(
        self, frame: Frame, fit: CanvasFit, found: Detections, *, estimated: bool
    ) -> Sighting:
        if not estimated:
            return Sighting(found=found, fit=fit, cell_scale=fit.scale)
        scale = fit.scale / (self._ratio(frame, fit, found) or 1.0)
        canvas_um = self._settings.um_per_canvas_px
        return Sighting(
            found=found,
            fit=fit,
            cell_scale=scale,
            um_per_px=None if canvas_um is None else scale * canvas_um,
        )

    def _ratio(self, frame: Frame, fit: CanvasFit, found: Detections) -> float | None:
        """Return how much larger the median detected cell is than expected; None with too few
        cells.
        """
        inside = ~at_border(found.boxes, frame_hw=(frame.height, frame.width), scale=fit.scale)
        red = are_red(self._settings.kind_numbers[found.classes])
        boxes = found.boxes[inside & red & (found.scores >= _SURE)].astype(np.float64)
        if len(boxes) < _LEAST_CELLS:
            return None
        sides_px = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) * fit.scale
        return float(np.median(sides_px)) / self._cell_canvas_px

    def _canvas(self, frame: Frame, assumed: CanvasFit, scale: float) -> CanvasFit | None:
        """Return a canvas of about this scale, rounded to quarter octaves of the assumed one,
        because a network is compiled for each shape; None if it would be too large or empty.
        """
        steps = round(_STEPS_PER_OCTAVE * math.log2(scale / assumed.scale))
        rounded = assumed.scale * 2.0 ** (steps / _STEPS_PER_OCTAVE)
        try:
            return canvas_at((frame.height, frame.width), scale=rounded, settings=self._settings)
        except ImageError:
            return None
