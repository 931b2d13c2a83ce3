"""Render smears with their truth: fields of any size for tests, benchmarks and examples.

They are bright-field images of a stained smear: every cell adds absorbance, so overlapping cells
are darker, and light, lens and camera act after that. Nothing here is a medical image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import UsageError
from rbc_engine.sources.synthetic.drawn_cells import (
    TYPES,
    Cell,
    Painted,
    make_cell,
    make_platelet,
    paint,
)
from rbc_engine.sources.synthetic.layout import place_cells
from rbc_engine.sources.synthetic.look import Look, draw_look, expose
from rbc_engine.sources.synthetic.truth import label_regions
from rbc_engine.types.arrays import Float32, Int32, UInt8

__all__ = ["DEFAULT_MIX", "SyntheticField", "check_mix", "render_field"]

DEFAULT_MIX: Mapping[str, float] = {
    "oval_disc": 0.6,
    "elongated_sickle": 0.12,
    "reticulocyte": 0.06,
    "granular": 0.06,
    "echinocyte": 0.08,
    "stomatocyte": 0.08,
}
"""Share of each type by default: a smear of sickle-cell disease."""

_CELL_DIAMETER_UM = 7.6
_SMALLEST_SIDE_PX = 32
_SMALLEST_CELL_PX = 12.0
_CELLS_PER_SHORT_SIDE = 12
_PLATELETS_PER_CELL = 0.07
_LOOK_STREAM = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class SyntheticField:
    """Hold one rendered field and its truth: R regions, N cells, T = len(TYPES) types.

    A region is a connected component of the mask (8-connected): a single cell or a touching group.

    pixels: uint8 [H, W, 3], RGB.
    mask: uint8 [H, W], 255 where a red cell is, else 0.
    boxes: float32 [R, 4], x0 y0 x1 y1 of the regions in px, the far edges exclusive, in the order
        in which a row-by-row scan meets them.
    types: bool [R, T], the types that a region holds, in the order of TYPES.
    cell_counts: int32 [R], the cells of each region.
    cell_boxes: float32 [N, 4], of the part of each cell that lies in the field.
    cell_types: int32 [N], indices into TYPES.
    pixel_um: width of a pixel in µm, from cells of 7.6 µm.
    """

    pixels: UInt8
    mask: UInt8
    boxes: Float32
    types: npt.NDArray[np.bool_]
    cell_counts: Int32
    cell_boxes: Float32
    cell_types: Int32
    pixel_um: float

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return (
            f"SyntheticField({width}x{height} px, {len(self.boxes)} regions, "
            f"{len(self.cell_boxes)} cells)"
        )


def render_field(
    *,
    seed: int,
    width: int = 1280,
    height: int = 960,
    cells: int = 60,
    cell_px: float | None = None,
    touching: float = 0.3,
    mix: Mapping[str, float] = DEFAULT_MIX,
    look_seed: int | None = None,
) -> SyntheticField:
    """Render one field.

    The same arguments give the same layout, truth and image everywhere, except for single grey
    levels where the maths libraries of two machines round differently.

    seed: at least 0.
    width, height: of the field in px, at least 32.
    cells: exactly how many; the centre of each lies in the field.
    cell_px: mean diameter of a cell, at least 12; None: a twelfth of the short side, as in fields
        of a 100x objective, but no less than 12.
    touching: 0..1, the share of cells in touching or overlapping groups of two to four.
    mix: weight of each type, see check_mix.
    look_seed: fields with the same one share stain, light and optics; None: seed.

    Raises UsageError for an argument outside its range, and if the cells do not fit.
    """
    _check_least("seed", seed, 0)
    _check_least("width", width, _SMALLEST_SIDE_PX)
    _check_least("height", height, _SMALLEST_SIDE_PX)
    _check_least("cells", cells, 0)
    if look_seed is not None:
        _check_least("look_seed", look_seed, 0)
    if cell_px is None:
        cell_px = max(min(width, height) / _CELLS_PER_SHORT_SIDE, _SMALLEST_CELL_PX)
    if not (math.isfinite(cell_px) and cell_px >= _SMALLEST_CELL_PX):
        raise UsageError(f"cell_px must be at least {_SMALLEST_CELL_PX:g} (got {cell_px})")
    if not 0.0 <= touching <= 1.0:
        raise UsageError(f"touching must be a share of the cells, 0..1 (got {touching})")
    shares = check_mix(mix)

    # A stream of its own, so that the look does not depend on the layout.
    look = draw_look(np.random.PCG64((_LOOK_STREAM, seed if look_seed is None else look_seed)))
    rng = np.random.Generator(np.random.PCG64(seed))
    kinds = rng.choice(len(TYPES), size=cells, p=shares)
    drawn = [make_cell(TYPES[kind], mean_diameter_px=cell_px, look=look, rng=rng) for kind in kinds]
    centres = place_cells(
        [cell.outline for cell in drawn],
        touching=touching,
        width=width,
        height=height,
        gap_px=2.0 + 0.06 * cell_px,
        rng=rng,
    )

    canvas = _Canvas(width=width, height=height, scale=cell_px / 40.0, look=look)
    painted = [canvas.add(cell, centre) for cell, centre in zip(drawn, centres, strict=True)]
    mask = canvas.inside.copy()  # before the platelets, which are not red cells
    for centre in _off_cells(mask, rng.poisson(_PLATELETS_PER_CELL * cells), rng):
        canvas.add(make_platelet(mean_diameter_px=cell_px, rng=rng), centre)

    labels, boxes = label_regions(mask)
    types = np.zeros((len(boxes), len(TYPES)), np.bool_)
    cell_counts = np.zeros(len(boxes), np.int32)
    cell_boxes = np.empty((cells, 4), np.float32)
    for index, (kind, part) in enumerate(zip(kinds, painted, strict=True)):
        # A cell that the edge of the field cuts in two belongs to two regions.
        regions = np.unique(labels[part.rows, part.columns][part.inside]) - 1
        types[regions, kind] = True
        cell_counts[regions] += 1
        cell_boxes[index] = part.box()
    return SyntheticField(
        pixels=expose(canvas.haemoglobin, canvas.dye, look=look, rng=rng),
        mask=mask.astype(np.uint8) * np.uint8(255),
        boxes=boxes,
        types=types,
        cell_counts=cell_counts,
        cell_boxes=cell_boxes,
        cell_types=kinds.astype(np.int32),
        pixel_um=_CELL_DIAMETER_UM / cell_px,
    )


def check_mix(mix: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return shares float64 [T] in the order of TYPES, summing to 1, of weights by name; an omitted
    type has none.

    Raises UsageError for a name that is not in TYPES, a weight that is negative or not finite, or
    no weight above 0.
    """
    strangers = sorted(set(mix) - set(TYPES))
    if strangers:
        raise UsageError(f"mix names {strangers}, which are not among {list(TYPES)}")
    weights = np.array([mix.get(name, 0.0) for name in TYPES], np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise UsageError(f"mix needs finite weights >= 0, at least one above 0 (got {dict(mix)})")
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


class _Canvas:
    """Hold the optical thickness of a field, cell by cell."""

    def __init__(self, *, width: int, height: int, scale: float, look: Look) -> None:
        self.haemoglobin = np.zeros((height, width), np.float32)
        self.dye = np.zeros((height, width), np.float32)
        self.inside = np.zeros((height, width), np.bool_)
        self._scale = scale
        self._look = look

    def add(self, cell: Cell, centre: npt.NDArray[np.float64]) -> Painted:
        part = paint(cell, centre, shape=self.inside.shape, scale=self._scale, look=self._look)
        tile = part.rows, part.columns
        self.haemoglobin[tile] += part.haemoglobin
        self.dye[tile] += part.dye
        self.inside[tile] |= part.inside
        return part


def _off_cells(
    mask: npt.NDArray[np.bool_], count: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return up to `count` random points [P, 2], x y in px, none of which lies on a cell."""
    height, width = mask.shape
    points = rng.uniform((0.0, 0.0), (width, height), size=(count, 2))
    columns, rows = points.astype(np.intp).T
    free: npt.NDArray[np.float64] = points[~mask[rows, columns]]
    return free


def _check_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be an integer of at least {least} (got {value!r})")
