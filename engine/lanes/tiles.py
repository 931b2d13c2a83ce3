"""Cut a whole slide into tiles that the detector sees as it would see the slide as one frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.lanes.canvas import canvas_scale
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.types.arrays import Float32
from rbc_engine.types.frames import CanvasFit

__all__ = [
    "OVERLAP_CANVAS_PX",
    "TILE_CANVAS_PX",
    "Axis",
    "Tile",
    "TilePlan",
    "assumed_scale",
    "plan_tiles",
    "tile_grid",
]

TILE_CANVAS_PX = 640
"""Side of a tile on the canvas: a few hundred cells at most, which the detector's fixed-size
outputs hold.
"""

OVERLAP_CANVAS_PX = 128
"""Overlap of neighbouring tiles: a clump of about five cells. Larger ones may be joined from
parts.
"""

_GRID_CANVAS_PX = 128
_SCALE_RANGE = (1 / 8, 8.0)
_FIELD_SHORT_SIDE_PX = 480
_MAX_TILE_PX = 3072


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Lay tiles along one side of a slide, each beginning step_px after the previous one; the last
    may be shorter.

    All in level-0 pixels: length_px of the slide, side_px of a tile, step_px at least half of it.
    """

    length_px: int
    side_px: int
    step_px: int

    @property
    def count(self) -> int:
        return 1 + max(0, -(-(self.length_px - self.side_px) // self.step_px))

    @property
    def overlap_px(self) -> int:
        return self.side_px - self.step_px

    def extent(self, index: int) -> tuple[int, int]:
        """Return where a tile begins and ends."""
        begin = index * self.step_px
        return begin, min(begin + self.side_px, self.length_px)

    def core(self, index: int) -> tuple[float, float]:
        """Return the part of a tile that is its own: up to the middle of each overlap. The cores
        cover the side once.
        """
        begin, end = 0.0, float(self.length_px)
        if index > 0:
            begin = index * self.step_px + self.overlap_px / 2
        if index < self.count - 1:
            end = (index + 1) * self.step_px + self.overlap_px / 2
        return begin, end


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Describe one tile. row, column: from 0. box: x0, y0, x1, y1 in level-0 pixels. fit: where it
    lies on its canvas.
    """

    row: int
    column: int
    box: tuple[int, int, int, int]
    fit: CanvasFit


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Hold the tiles of a slide, row by row. canvas_scale: canvas px per level-0 pixel, the same
    for all.
    """

    columns: Axis
    rows: Axis
    canvas_scale: float
    canvas_hw: tuple[int, int]

    @property
    def count(self) -> int:
        return self.rows.count * self.columns.count

    def tile(self, row: int, column: int) -> Tile:
        (x0, x1), (y0, y1) = self.columns.extent(column), self.rows.extent(row)
        resized = tuple(
            min(int(side * self.canvas_scale + 1e-6), most)
            for side, most in zip((y1 - y0, x1 - x0), self.canvas_hw, strict=True)
        )
        fit = CanvasFit(
            resized_hw=(resized[0], resized[1]), canvas_hw=self.canvas_hw, scale=self.canvas_scale
        )
        return Tile(row=row, column=column, box=(x0, y0, x1, y1), fit=fit)

    def tiles(self) -> Iterator[Tile]:
        for row in range(self.rows.count):
            for column in range(self.columns.count):
                yield self.tile(row, column)

    def extent(self, tile: Tile) -> Float32:
        """Return float32 [4], the tile's box; infinite at an edge of the slide, which cuts no cell
        in two tiles.
        """
        x0, y0, x1, y1 = tile.box
        sides = (
            x0 if tile.column else -np.inf,
            y0 if tile.row else -np.inf,
            x1 if tile.column < self.columns.count - 1 else np.inf,
            y1 if tile.row < self.rows.count - 1 else np.inf,
        )
        return np.array(sides, np.float32)

    def core(self, tile: Tile) -> Float32:
        """Return float32 [4], the tile's core; infinite at an edge of the slide."""
        (x0, x1), (y0, y1) = self.columns.core(tile.column), self.rows.core(tile.row)
        inner = np.isfinite(self.extent(tile))
        return np.where(inner, (x0, y0, x1, y1), (-np.inf, -np.inf, np.inf, np.inf)).astype(
            np.float32
        )


def assumed_scale(settings: DetectorSettings) -> float:
    """Return canvas px per level-0 pixel for a slide of unknown µm per pixel, or a pack that does
    not know its own: those of a field of 640x480 px.
    """
    return settings.short_side_px / _FIELD_SHORT_SIDE_PX


def tile_grid(settings: DetectorSettings) -> int:
    """Return the canvas px that the sides and overlaps of tiles are multiples of."""
    return max(_GRID_CANVAS_PX, settings.strides_px[-1])


def plan_tiles(
    slide_hw: tuple[int, int],
    *,
    pixel_um: float | None,
    settings: DetectorSettings,
    tile_canvas_px: int | None = None,
    overlap_canvas_px: int = OVERLAP_CANVAS_PX,
    wanted: float | None = None,
) -> TilePlan:
    """Plan the tiles of a slide.

    The scale is `wanted`, or that of fit_canvas, or `assumed_scale` without pixel_um, rounded so
    that 128 canvas px are a whole number of pixels: half a per cent at most if the slide is as fine
    as the canvas.
    So every tile begins on a pixel, and on a cell of the detector's coarsest map: it samples the
    same points as one frame of the whole slide would.

    slide_hw: height and width of level 0, px. pixel_um: width of a level-0 pixel in µm, None if
    unknown. wanted: canvas px per level-0 pixel, in place of pixel_um.
    tile_canvas_px, overlap_canvas_px: multiples of 128 (or of the coarsest stride, if that is
        more); the overlap is at most half of the tile. None: TILE_CANVAS_PX, or less if a tile
        would have more than 3072 px a side.

    Raises ImageError if the slide is too small for a tile, or its pixels too coarse or too fine to
    be used; UsageError for a tile or an overlap outside its range.
    """
    grid = tile_grid(settings)
    if wanted is None:
        known = pixel_um is not None and settings.um_per_canvas_px is not None
        wanted = assumed_scale(settings)
        if known:
            wanted = canvas_scale(slide_hw, pixel_um=pixel_um, settings=settings)
    if not _SCALE_RANGE[0] <= wanted <= _SCALE_RANGE[1]:
        raise ImageError(
            f"{wanted:.3g} canvas px to a pixel ({pixel_um or 'unknown'} µm), outside "
            f"{_SCALE_RANGE[0]:g}..{_SCALE_RANGE[1]:g}: a red cell is barely visible, or larger "
            f"than a tile; correct --um-per-px, or scan at another magnification"
        )
    grid_px = round(grid / wanted)
    scale = grid / grid_px
    if tile_canvas_px is None:
        overlap_canvas_px = -(-overlap_canvas_px // grid) * grid
        most = min(TILE_CANVAS_PX, _MAX_TILE_PX // grid_px * grid)
        tile_canvas_px = max(most // grid * grid, 2 * overlap_canvas_px)
    _check_tile(tile_canvas_px, overlap_canvas_px, grid=grid)
    sides = [int(side * scale + 1e-6) for side in slide_hw]
    coarsest = settings.strides_px[-1]
    if min(sides) < coarsest:
        raise ImageError(
            f"{slide_hw[1]}x{slide_hw[0]} px are {sides[1]}x{sides[0]} px on the canvas, but each "
            f"side must have at least {coarsest}; give the slide itself, not a thumbnail, or "
            "correct --um-per-px"
        )
    side_px = tile_canvas_px // grid * grid_px
    step_px = side_px - overlap_canvas_px // grid * grid_px
    rows, columns = (Axis(length_px=side, side_px=side_px, step_px=step_px) for side in slide_hw)
    canvas = [min(tile_canvas_px, -(-side // coarsest) * coarsest) for side in sides]
    return TilePlan(
        columns=columns, rows=rows, canvas_scale=scale, canvas_hw=(canvas[0], canvas[1])
    )


def _check_tile(tile_canvas_px: int, overlap_canvas_px: int, *, grid: int) -> None:
    for name, value in (
        ("tile_canvas_px", tile_canvas_px),
        ("overlap_canvas_px", overlap_canvas_px),
    ):
        if value < grid or value % grid:
            raise UsageError(f"{name} must be a multiple of {grid} (got {value})")
    if 2 * overlap_canvas_px > tile_canvas_px:
        raise UsageError(
            f"overlap_canvas_px must be at most half of tile_canvas_px {tile_canvas_px} (got "
            f"{overlap_canvas_px})"
        )
