"""Estimate the scale of a field from the size of its cells.

A field without µm per pixel is assumed to show as much of a smear as the pack's training fields. If
that is far from true, the detector misses cells, and the classifier, which relies on size, calls
nearly all of them microcytes or macrocytes. The boxes reveal it: no blood has cells of that size.
Such a field is detected again at the scale at which its cells have a plausible size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import ImageError
from rbc_engine.lanes.canvas import at_border, canvas_scale, fit_canvas
from rbc_engine.lanes.stages.detect import Detections
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.types.frames import CanvasFit, Frame
from rbc_engine.types.kinds import are_red

__all__ = ["CellScale", "Detector", "Sighting"]

_LEAST_CELLS = 6
# Low, because the detector is less sure of cells far smaller than those it was trained on.
_SURE = 0.3
# Sides of boxes (roots of their areas) in µm. Over 582 fields of labelled smears, with microcytic
# and macrocytic ones among them, the median lies in 6.1 to 9.8 and the lower quartile, which clumps
# do not raise, in 5.2 to 9.0.
_SMALL_MEDIAN_UM, _MEDIAN_UM = 5.6, 7.7
_LARGE_QUARTILE_UM, _QUARTILE_UM = 10.0, 7.2
_MOST_TIMES = 4.0
_STEPS_PER_OCTAVE = 4
_ROUNDS = 3

Detector = Callable[[Sequence[Frame], Sequence[CanvasFit]], list[Detections]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sighting:
    """Hold what was detected in a frame, and at which scale.

    fit: the canvas it was detected on.
    cell_scale: canvas px per frame px at which its cells have their true size: the canvas's, or the
    estimate.
    um_per_px: of the frame, if it was estimated; else None.
    """

    found: Detections
    fit: CanvasFit
    cell_scale: float
    um_per_px: float | None = None


class CellScale:
    """Estimate scales for one pack. A pack that does not know its own µm per canvas px has no such
    estimate.
    """

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings

    def detect(
        self, frames: Sequence[Frame], assumed: Sequence[CanvasFit], detect: Detector
    ) -> list[Sighting]:
        """Detect in every frame, and again where its cells cannot be as large as they seem.

        assumed: the canvas of each. A frame is left there if its scale is known, if no scale is
        consistent, or if it has fewer than six regions clear of its border.
        """
        first_fits, first_found = assumed, detect(frames, assumed)
        fits, found = list(first_fits), list(first_found)
        doubted: dict[int, bool] = {}  # whether the cells seemed too small
        for number in range(_ROUNDS):
            again: dict[int, CanvasFit] = {}
            for index in doubted if number else range(len(frames)):
                small = self._seem_small(frames[index], fits[index], found[index])
                # Never back: no scale is consistent.
                if small is None or doubted.get(index, small) != small:
                    continue
                fit = self._refit(frames[index], fits[index], found[index], small=small)
                if fit is not None:
                    again[index], doubted[index] = fit, small
            if not again:
                break
            seen = detect([frames[index] for index in again], list(again.values()))
            for (index, fit), detections in zip(again.items(), seen, strict=True):
                fits[index], found[index] = fit, detections
        sightings = []
        for index, (frame, fit, detections) in enumerate(zip(frames, fits, found, strict=True)):
            estimated = index in doubted and self._plausible(frame, fit, detections)
            if not estimated and detections.wrong is None:
                fit, detections = first_fits[index], first_found[index]
            scale, um_per_px = fit.scale, None
            if estimated:
                scale /= self._apparent(frame, fit, detections, small=doubted[index])
                um_per_px = scale * self._canvas_um
            sightings.append(
                Sighting(found=detections, fit=fit, cell_scale=scale, um_per_px=um_per_px)
            )
        return sightings

    @property
    def _canvas_um(self) -> float:
        return self._settings.um_per_canvas_px or math.nan

    def _seem_small(self, frame: Frame, fit: CanvasFit, found: Detections) -> bool | None:
        """Return whether cells seem smaller than any are; None if they do not seem larger
        either.
        """
        unknown = self._settings.um_per_canvas_px is None
        if unknown or frame.pixel_um is not None or frame.canvas is not None:
            return None
        sides_um = self._sides_um(frame, fit, found)
        if len(sides_um) < _LEAST_CELLS:
            return None
        if np.median(sides_um) < _SMALL_MEDIAN_UM:
            return True
        return False if np.quantile(sides_um, 0.25) > _LARGE_QUARTILE_UM else None

    def _plausible(self, frame: Frame, fit: CanvasFit, found: Detections) -> bool:
        """Return whether the estimate is plausible: boxes equally large on any canvas are not
        cells.
        """
        enough = len(self._sides_um(frame, fit, found)) >= _LEAST_CELLS
        return enough and self._seem_small(frame, fit, found) is None

    def _apparent(self, frame: Frame, fit: CanvasFit, found: Detections, *, small: bool) -> float:
        """Return the ratio of apparent to true size of the cells. small: by the median, else by the
        lower quartile.
        """
        sides_um = self._sides_um(frame, fit, found)
        if not len(sides_um):
            return 1.0
        if small:
            return float(np.median(sides_um)) / _MEDIAN_UM
        return float(np.quantile(sides_um, 0.25)) / _QUARTILE_UM

    def _refit(
        self, frame: Frame, fit: CanvasFit, found: Detections, *, small: bool
    ) -> CanvasFit | None:
        """Return the canvas on which the cells have about their true size; None if it is the same,
        or too large.

        It is rounded to quarter octaves of the first one, because a network is compiled for each
        shape.
        """
        hw = (frame.height, frame.width)
        first = canvas_scale(hw, pixel_um=None, settings=self._settings)
        wanted = fit.scale / self._apparent(frame, fit, found, small=small) / first
        wanted = min(max(wanted, 1 / _MOST_TIMES), _MOST_TIMES)
        steps = round(_STEPS_PER_OCTAVE * math.log2(wanted))
        scale = first * 2.0 ** (steps / _STEPS_PER_OCTAVE)
        if math.isclose(scale, fit.scale, rel_tol=0.01):
            return None
        try:
            return fit_canvas(hw, pixel_um=scale * self._canvas_um, settings=self._settings)
        except ImageError:
            return None

    def _sides_um(self, frame: Frame, fit: CanvasFit, found: Detections) -> npt.NDArray[np.float64]:
        """Return the sides of the sure red regions, or cells, clear of the border."""
        inside = ~at_border(found.boxes, frame_hw=(frame.height, frame.width), scale=fit.scale)
        red = are_red(self._settings.kind_numbers[found.classes])
        boxes = found.boxes[inside & red & (found.scores >= _SURE)].astype(np.float64)
        sides: npt.NDArray[np.float64] = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
        return sides * (fit.scale * self._canvas_um)
