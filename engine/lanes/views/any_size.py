"""Analyse frames of any size: one that shows more than a field is cut into tiles, and merged.

The detector sees a field's worth of cells at once: its proposals and its regions have a fixed
number. A frame that shows more loses cells, silently or with the flag `saturated`. So it is cut up
as whole slides are, at the scale that is known, or at that of its cells.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.lanes.base import AnyLane
from rbc_engine.lanes.canvas import canvas_scale
from rbc_engine.lanes.cell_merge import open_merge
from rbc_engine.lanes.measure import measure_field
from rbc_engine.lanes.tiles import TilePlan, assumed_scale, plan_tiles, tile_grid
from rbc_engine.lanes.views.lit_part import LitPart, lit_part
from rbc_engine.packs.manifest import DetectorSettings, Manifest
from rbc_engine.types.frames import Decoded, Frame
from rbc_engine.types.results import FieldFlag, FieldResult, ScaleSource

__all__ = ["AnySizeLane"]

_MOST_FIELDS = 1.6
"""A frame that shows more than so many fields is cut up. A picture of 16:9 shows 1.33."""
_TILE_STEPS = (3, 2)
"""Sides of tiles in steps of their grid, the second tried where the first filled the detector's
output in some tile. The first shows about one field of the shipped packs; neighbours share a step.
"""
_FIELD_PX = 640 * 480
"""A frame of no more pixels is not measured beforehand."""
_SURE = 0.1
"""Of FieldMeasure.confidence, below which a size is a guess."""
_MEDIAN_UM = 7.7
"""Of a red cell's box: the root of its area. See rbc_engine.lanes.stages.cell_scale."""
_SAME_SCALE = 1.34
"""A measured scale so near the assumed one is the assumed one: smears differ by as much."""
_STEPS_PER_OCTAVE = 4
_LEAST_CELLS_ACROSS = 3.0
_MAY_BE_SMALLER, _FAR_SMALLER = 2.0, 3.5
"""Fields are so many times as high as a frame in which cells are measured, and as one that is far
smaller than a field unless they are.
"""


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A scale: canvas px per frame px, its µm per px if the pack has a scale, and who says so."""

    scale: float
    um_per_px: float | None
    origin: ScaleSource


class AnySizeLane:
    """Analyse batches on a lane, and what is too large for it in tiles.

    lane: taken over. batch: how many tiles it takes at once. estimate_scale: as for Lane.
    """

    def __init__(
        self, lane: AnyLane, settings: Manifest, *, batch: int, estimate_scale: bool
    ) -> None:
        self._lane = lane
        self._settings = settings
        self._batch = batch
        self._estimate = estimate_scale

    def prepare(self) -> None:
        """See AnyLane."""
        self._lane.prepare()

    def close(self) -> None:
        """See AnyLane."""
        self._lane.close()

    def analyze(self, batch: Sequence[Decoded], *, keep_frames: bool = False) -> list[FieldResult]:
        """See AnyLane."""
        whole = batch
        parts = [_lit(decoded) for decoded in whole]
        batch = [
            decoded if part is None else _of_part(decoded, part)
            for decoded, part in zip(whole, parts, strict=True)
        ]
        results: dict[int, FieldResult] = {}
        left: list[int] = []
        for index, decoded in enumerate(batch):
            found = self._before(decoded)
            if found is None:
                left.append(index)
            else:
                results[index] = found
        if left:
            ordinary = [batch[index] for index in left]
            analysed = self._lane.analyze(ordinary)
            for index, result in zip(left, analysed, strict=True):
                results[index] = self._after(batch[index], result)
        finished = []
        for index, (decoded, part) in enumerate(zip(whole, parts, strict=True)):
            result, frame = results[index], decoded.frame
            if frame is not None and result.regions is not None:
                if part is not None:
                    result = replace(
                        result,
                        regions=part.in_frame(result.regions),
                        width=frame.width,
                        height=frame.height,
                    )
                result = replace(result, frame=frame.on_host() if keep_frames else None)
            finished.append(result)
        return finished

    @property
    def _detector(self) -> DetectorSettings:
        return self._settings.detector

    def _before(self, decoded: Decoded) -> FieldResult | None:
        """Return the result of a frame that must not be analysed as one; None if it may."""
        frame = decoded.frame
        if frame is None or frame.canvas is not None:
            return None
        known = self._known(frame)
        if known is not None:
            return self._tiled(decoded, known) if self._shows_more(frame, known.scale) else None
        why = self._far_smaller(frame)
        if why is not None:
            return FieldResult.failed(decoded, f"{frame.field or 'the image'}: {why}")
        measured = self._measured(frame)
        if measured is None or not self._shows_more(frame, measured.scale):
            return None
        result = self._tiled(decoded, measured)
        return result if self._plausible(result) else None

    def _after(self, decoded: Decoded, result: FieldResult) -> FieldResult:
        """Return the result of a frame that filled the detector's output, or turned out to show
        more than a field, from its tiles; of any other frame as it is.
        """
        frame = decoded.frame
        if frame is None or result.regions is None:
            return result
        if frame.canvas is not None:
            scale = frame.canvas.scale
        elif result.um_per_px is not None and self._detector.um_per_canvas_px is not None:
            scale = result.um_per_px / self._detector.um_per_canvas_px
        else:
            hw = (frame.height, frame.width)
            scale = canvas_scale(hw, pixel_um=None, settings=self._detector)
        # A short strip that says nothing of its scale is taken for a field as it is.
        may_be = result.um_per_px_from != "assumed" or frame.height * frame.width > _FIELD_PX
        too_much = frame.canvas is None and may_be and self._shows_more(frame, scale)
        if not (result.saturated or too_much):
            return result
        known = _Known(scale=scale, um_per_px=result.um_per_px, origin=result.um_per_px_from)
        tiled = self._tiled(decoded, known)
        return result if tiled.regions is None else tiled

    def _known(self, frame: Frame) -> _Known | None:
        canvas_um = self._detector.um_per_canvas_px
        if frame.pixel_um is None or canvas_um is None:
            return None
        return _Known(
            scale=frame.pixel_um / canvas_um,
            um_per_px=frame.pixel_um,
            origin=frame.pixel_um_from,
        )

    def _measured(self, frame: Frame) -> _Known | None:
        """Return the scale of a large frame by its cells; None where they do not tell."""
        canvas_um, cell_canvas_px = self._detector.um_per_canvas_px, self._detector.cell_canvas_px
        if cell_canvas_px is None and canvas_um is not None:
            cell_canvas_px = _MEDIAN_UM / canvas_um
        if not self._estimate or cell_canvas_px is None or frame.height * frame.width <= _FIELD_PX:
            return None
        found = measure_field(frame.on_host().pixels)
        if found.cell_px is None or found.confidence < _SURE:
            return None
        scale = cell_canvas_px / found.cell_px
        usual = assumed_scale(self._detector)
        times = scale / usual
        if 1 / _SAME_SCALE < times < _SAME_SCALE:
            scale = usual
        else:
            scale = usual * 2 ** (round(_STEPS_PER_OCTAVE * math.log2(times)) / _STEPS_PER_OCTAVE)
        um_per_px = None if canvas_um is None else scale * canvas_um
        return _Known(scale=scale, um_per_px=um_per_px, origin="estimated")

    def _shows_more(self, frame: Frame, scale: float) -> bool:
        field = self._detector.short_side_px**2 * 4 / 3
        return frame.height * frame.width * scale**2 > _MOST_FIELDS * field

    def _far_smaller(self, frame: Frame) -> str | None:
        """Say why a frame of unknown scale is no field; None if it may be one."""
        side = min(frame.height, frame.width)
        if side * _MAY_BE_SMALLER >= self._detector.short_side_px:
            return None
        found = measure_field(frame.on_host().pixels)
        if found.cell_px is not None and found.confidence >= _SURE:
            if side >= _LEAST_CELLS_ACROSS * found.cell_px:
                return None
        elif side * _FAR_SMALLER >= self._detector.short_side_px:
            return None
        return (
            f"{frame.width}x{frame.height} px, far smaller than a field, which shows dozens of "
            "cells: how large its cells are cannot be told; give whole fields, or --um-per-px"
        )

    def _plausible(self, result: FieldResult) -> bool:
        """Return whether regions found at a measured scale are as large as cells."""
        if result.regions is None or result.um_per_px is None:
            return False
        boxes = result.regions.boxes[result.regions.red]
        if not len(boxes):
            return False
        sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) * result.um_per_px
        return bool(0.6 * _MEDIAN_UM < np.median(sides) < 2.0 * _MEDIAN_UM)

    def _tiled(self, decoded: Decoded, known: _Known) -> FieldResult:
        """Analyse a frame in tiles, smaller ones where a tile fills the detector's output."""
        started = time.perf_counter()
        frame, ref = decoded.frame, decoded.ref
        assert frame is not None
        frame = frame.on_host()
        result: FieldResult | None = None
        try:
            grid = tile_grid(self._detector)
            for steps in _TILE_STEPS:
                plan = plan_tiles(
                    (frame.height, frame.width),
                    pixel_um=None,
                    settings=self._detector,
                    tile_canvas_px=steps * grid,
                    overlap_canvas_px=grid,
                    wanted=known.scale,
                )
                result = self._merged(decoded, frame, plan, known)
                if not result.saturated:
                    break
        except ImageError as error:
            return FieldResult.failed(decoded, f"{frame.field or 'the image'}: {error}")
        assert result is not None
        seconds = decoded.seconds + time.perf_counter() - started
        return replace(result, path=str(ref.path), seconds=seconds)

    def _merged(self, decoded: Decoded, frame: Frame, plan: TilePlan, known: _Known) -> FieldResult:
        merge = open_merge(plan, self._settings)
        tiles = list(plan.tiles())
        saturated = False
        seen: list[FieldResult] = []
        for begin in range(0, len(tiles), self._batch):
            chunk = tiles[begin : begin + self._batch]
            frames = []
            for tile in chunk:
                x0, y0, x1, y1 = tile.box
                pixels = np.ascontiguousarray(frame.pixels[y0:y1, x0:x1])
                frames.append(
                    Frame(pixels=pixels, slide=frame.slide, field=frame.field, canvas=tile.fit)
                )
            batch = [Decoded(ref=decoded.ref, frame=part) for part in frames]
            for tile, result in zip(chunk, self._lane.analyze(batch), strict=True):
                if result.regions is None:
                    return FieldResult.failed(decoded, result.error or "a tile failed")
                saturated |= result.saturated
                seen.append(result)
                merge.add(tile, result.regions)
        return FieldResult(
            slide=decoded.ref.slide,
            field=decoded.ref.field,
            width=frame.width,
            height=frame.height,
            regions=merge.finish(),
            saturated=saturated,
            um_per_px=known.um_per_px,
            um_per_px_from=known.origin,
            unfamiliar_distance=_median([result.unfamiliar_distance for result in seen]),
            uncovered=_median([result.uncovered for result in seen]),
            flags=_flags_of_most(seen),
        )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _flags_of_most(tiles: Sequence[FieldResult]) -> FieldFlag:
    """Return the flags that more than half of the tiles have."""
    flags = FieldFlag(0)
    for flag in FieldFlag:
        if 2 * sum(flag in tile.flags for tile in tiles) > len(tiles):
            flags |= flag
    return flags


def _lit(decoded: Decoded) -> LitPart | None:
    """The lit part of a frame; None if all of it is lit."""
    frame = decoded.frame
    if frame is None or frame.canvas is not None:
        return None
    return lit_part(frame.on_host().pixels)


def _of_part(decoded: Decoded, part: LitPart) -> Decoded:
    assert decoded.frame is not None
    return replace(decoded, frame=replace(decoded.frame, pixels=part.pixels))
