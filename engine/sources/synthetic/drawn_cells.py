"""Make red cells of six types, and platelets: their outlines and their stain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.sources.synthetic.look import Look
from rbc_engine.sources.synthetic.outlines import (
    ANGLE,
    crescent,
    depth_inside,
    ellipse,
    ripple,
    turned,
)
from rbc_engine.types.arrays import Float32

__all__ = ["TYPES", "Cell", "Painted", "make_cell", "make_platelet", "paint"]

TYPES = (
    "oval_disc",
    "elongated_sickle",
    "reticulocyte",
    "granular",
    "echinocyte",
    "stomatocyte",
)
"""The types of the schema scd6, in its order; all but the first are abnormal."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Pallor:
    """Describe the pale part of a cell: an ellipse along the cell's own axes.

    depth: 0..1, how much of the haemoglobin is missing.
    long, short: semi-axes as a share of the cell's mean radius.
    softness: width of its edge as a share of the semi-axes.
    offset: of its centre, as a share of the mean radius.
    """

    depth: float
    long: float
    short: float
    softness: float
    offset: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Cell:
    """Describe a cell about the origin.

    outline: float32 [1024] in px, see synthetic_outlines.
    turn: angle of its long axis, rad.
    haemoglobin, dye: thickness of either stain, 1 being that of an ordinary cell.
    granules: float32 [G, 5], each a round spot: x, y and standard deviation in px, then the
        haemoglobin and the dye that it adds at its centre.
    """

    outline: Float32
    turn: float
    haemoglobin: float
    dye: float
    pallor: Pallor
    granules: Float32


@dataclass(frozen=True, eq=False, kw_only=True)
class Painted:
    """Hold the part of a cell that lies in the field: h rows and w columns of it.

    haemoglobin, dye: float32 [h, w], optical thickness.
    inside: bool [h, w], the cell's mask.
    """

    rows: slice
    columns: slice
    haemoglobin: Float32
    dye: Float32
    inside: npt.NDArray[np.bool_]

    def box(self) -> tuple[float, float, float, float]:
        """Return x0 y0 x1 y1 of the mask in px of the field, the far edges exclusive."""
        rows = np.flatnonzero(self.inside.any(axis=1)) + self.rows.start
        columns = np.flatnonzero(self.inside.any(axis=0)) + self.columns.start
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def make_cell(kind: str, *, mean_diameter_px: float, look: Look, rng: np.random.Generator) -> Cell:
    """Return a cell of one of TYPES, at random."""
    size = np.clip(rng.normal(1.0, look.anisocytosis), 0.7, 1.35)
    return _MAKERS[kind](0.5 * mean_diameter_px * float(size), look, rng)


def make_platelet(*, mean_diameter_px: float, rng: np.random.Generator) -> Cell:
    """Return a platelet: a small purple grain with no haemoglobin."""
    radius = mean_diameter_px * rng.uniform(0.06, 0.12)
    outline = turned(radius * ripple(0.12, rng), rng.uniform(0.0, 2.0 * np.pi))
    spots = _spots(5, radius, reach=0.7, size=0.28, haemoglobin=0.0, dye=(0.0, 0.4), rng=rng)
    return Cell(
        outline=outline,
        turn=0.0,
        haemoglobin=0.0,
        dye=rng.uniform(0.2, 0.5),
        pallor=_NO_PALLOR,
        granules=spots,
    )


def paint(
    cell: Cell, centre: Float64, *, shape: tuple[int, ...], scale: float, look: Look
) -> Painted:
    """Return the stain of a cell whose centre, x y in px, lies in a field of `shape` [H, W].

    scale: by which the look's lengths are multiplied.
    """
    reach = float(cell.outline.max()) + 4.0 * scale + 1.0
    height, width = shape
    left, top = (max(int(c - reach), 0) for c in centre)
    right = min(int(centre[0] + reach) + 1, width)
    bottom = min(int(centre[1] + reach) + 1, height)
    x = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - centre[0])
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - centre[1]))[:, None]

    depth = depth_inside(cell.outline, x, y)
    cover = _smooth(depth / np.float32(look.edge_px * scale) + np.float32(0.5))
    thickness = np.float32(cell.haemoglobin) * (1.0 - _pallor(cell, x, y))
    dye = np.full_like(depth, cell.dye)
    if len(cell.granules):
        spots_x, spots_y, sigma, amounts = np.split(cell.granules, (1, 2, 3), axis=1)
        along_x = np.exp(-0.5 * ((x - spots_x) / sigma) ** 2)
        along_y = np.exp(-0.5 * ((y.T - spots_y) / sigma) ** 2)
        thickness += (along_y * amounts[:, :1]).T @ along_x
        dye += (along_y * amounts[:, 1:]).T @ along_x
    if cell.haemoglobin:
        edge = depth / np.float32(scale)
        thickness += np.float32(look.rim) * np.exp(-((edge - 2.0) ** 2) / 2.0)
        thickness *= cover
        thickness -= np.float32(look.halo) * np.exp(-((edge + 2.0) ** 2) / 1.6)
    else:
        thickness *= cover
    return Painted(
        rows=slice(top, bottom),
        columns=slice(left, right),
        haemoglobin=thickness,
        dye=dye * cover,
        inside=depth >= 0.0,
    )


def _pallor(cell: Cell, x: Float32, y: Float32) -> Float32:
    """Return the missing share of the haemoglobin, [h, w]."""
    pallor = cell.pallor
    radius = float(cell.outline.mean())
    cos, sin = np.float32(np.cos(cell.turn)), np.float32(np.sin(cell.turn))
    along = (x * cos + y * sin) / radius - np.float32(pallor.offset[0])
    across = (y * cos - x * sin) / radius - np.float32(pallor.offset[1])
    distance = np.sqrt((along / pallor.long) ** 2 + (across / pallor.short) ** 2)
    missing: Float32 = np.float32(pallor.depth) * _smooth(
        (1.0 - distance) / np.float32(2.0 * pallor.softness) + np.float32(0.5)
    )
    return missing


def _smooth(t: Float32) -> Float32:
    """Return 0 up to t = 0, 1 from t = 1, a cubic between."""
    t = np.clip(t, 0.0, 1.0)
    cubic: Float32 = t * t * (np.float32(3.0) - 2.0 * t)
    return cubic


_NO_PALLOR = Pallor(depth=0.0, long=1.0, short=1.0, softness=1.0)
_NO_GRANULES = np.zeros((0, 5), np.float32)


def _oval_disc(radius: float, look: Look, rng: np.random.Generator) -> Cell:
    turn = rng.uniform(0.0, 2.0 * np.pi)
    aspect = 1.0 + abs(rng.normal(0.0, 0.12))
    return Cell(
        outline=turned(radius * ellipse(min(aspect, 1.35)) * ripple(0.012, rng), turn),
        turn=turn,
        haemoglobin=_density(rng),
        dye=0.0,
        pallor=_disc_pallor(look.pallor, look, rng),
        granules=_NO_GRANULES,
    )


def _elongated_sickle(radius: float, look: Look, rng: np.random.Generator) -> Cell:
    turn = rng.uniform(0.0, 2.0 * np.pi)
    width = rng.uniform(0.33, 0.5)
    shape = crescent(
        length=rng.uniform(1.45, 1.9),
        width=width,
        bend=width * rng.uniform(0.0, 2.2),
        taper=rng.uniform(0.55, 0.95),
        lopsided=rng.uniform(-0.25, 0.25),
    )
    return Cell(
        outline=turned(radius * shape, turn),
        turn=turn,
        haemoglobin=1.12 * _density(rng),
        dye=0.0,
        pallor=Pallor(depth=0.25 * look.pallor, long=1.0, short=0.25, softness=0.9),
        granules=_NO_GRANULES,
    )


def _reticulocyte(radius: float, look: Look, rng: np.random.Generator) -> Cell:
    radius *= rng.uniform(1.08, 1.25)
    turn = rng.uniform(0.0, 2.0 * np.pi)
    # The network of ribosomal RNA: a few winding threads, drawn as chains of spots.
    threads = []
    for _ in range(int(rng.integers(4, 8))):
        heading = rng.uniform(0.0, 2.0 * np.pi) + np.cumsum(rng.normal(0.0, 0.6, 9))
        steps = 0.11 * radius * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        start = _in_disc(1, 0.5 * radius, rng)
        threads.append(start + np.cumsum(steps, axis=0) - 0.5 * steps.sum(axis=0))
    points = np.concatenate(threads)
    granules = np.empty((len(points), 5), np.float32)
    granules[:, :2] = points
    granules[:, 2] = 0.05 * radius
    granules[:, 3] = 0.0
    granules[:, 4] = rng.uniform(0.06, 0.26, len(points))
    return Cell(
        outline=turned(radius * ellipse(rng.uniform(1.0, 1.18)) * ripple(0.02, rng), turn),
        turn=turn,
        haemoglobin=0.85 * _density(rng),
        dye=rng.uniform(0.07, 0.14),
        pallor=_disc_pallor(0.15 * look.pallor, look, rng),
        granules=granules,
    )


def _granular(radius: float, look: Look, rng: np.random.Generator) -> Cell:
    turn = rng.uniform(0.0, 2.0 * np.pi)
    count = int(rng.integers(14, 28))
    return Cell(
        outline=turned(radius * ellipse(rng.uniform(1.0, 1.25)) * ripple(0.025, rng), turn),
        turn=turn,
        haemoglobin=0.92 * _density(rng),
        dye=0.0,
        pallor=_disc_pallor(0.4 * look.pallor, look, rng),
        granules=_spots(
            count, radius, reach=0.82, size=0.055, haemoglobin=0.1, dye=(0.15, 0.45), rng=rng
        ),
    )


def _echinocyte(radius: float, look: Look, rng: np.random.Generator) -> Cell:
    turn = rng.uniform(0.0, 2.0 * np.pi)
    radius *= rng.uniform(0.86, 0.98)
    count = int(rng.integers(15, 24))
    at = (np.arange(count) + rng.uniform(-0.25, 0.25, count)) * (2.0 * np.pi / count)
    height = rng.uniform(0.08, 0.2, count)
    apart = (ANGLE[:, None] - at + np.pi) % (2.0 * np.pi) - np.pi
    # Spicules: pointed, broad at the foot.
    spicules = (height * np.exp(-np.abs(apart) * (count / 1.3))).sum(axis=1)
    # Those that point at the viewer show as spots, dark or bright.
    seen_from_above = _spots(
        int(rng.integers(8, 16)),
        radius,
        reach=0.75,
        size=0.07,
        haemoglobin=0.0,
        dye=(0.0, 0.08),
        rng=rng,
    )
    seen_from_above[:, 3] = rng.uniform(-0.55, 0.45, len(seen_from_above))
    shape = ellipse(rng.uniform(1.0, 1.15)) + spicules - spicules.mean()
    return Cell(
        outline=turned(radius * shape, turn),
        turn=turn,
        haemoglobin=1.1 * _density(rng),
        dye=0.0,
        pallor=_disc_pallor(0.15 * look.pallor, look, rng),
        granules=seen_from_above,
    )


def _stomatocyte(radius: float, look: Look, rng: np.random.Generator) -> Cell:
    turn = rng.uniform(0.0, 2.0 * np.pi)
    return Cell(
        outline=turned(radius * ellipse(rng.uniform(1.0, 1.22)) * ripple(0.012, rng), turn),
        turn=turn,
        haemoglobin=_density(rng),
        dye=0.0,
        pallor=Pallor(
            depth=rng.uniform(0.62, 0.85),
            long=rng.uniform(0.48, 0.62),
            short=rng.uniform(0.13, 0.22),
            softness=0.45,
            offset=(rng.normal(0.0, 0.05), rng.normal(0.0, 0.05)),
        ),
        granules=_NO_GRANULES,
    )


_MAKERS: dict[str, Callable[[float, Look, np.random.Generator], Cell]] = {
    "oval_disc": _oval_disc,
    "elongated_sickle": _elongated_sickle,
    "reticulocyte": _reticulocyte,
    "granular": _granular,
    "echinocyte": _echinocyte,
    "stomatocyte": _stomatocyte,
}


def _density(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(1.0, 0.07), 0.8, 1.2))


def _disc_pallor(depth: float, look: Look, rng: np.random.Generator) -> Pallor:
    size = look.pallor_size * rng.uniform(0.75, 1.2)
    return Pallor(
        depth=min(depth * rng.uniform(0.7, 1.15), 0.9),
        long=size * rng.uniform(1.0, 1.25),
        short=size,
        softness=look.pallor_softness * rng.uniform(0.85, 1.15),
        offset=(rng.normal(0.0, 0.06), rng.normal(0.0, 0.06)),
    )


def _spots(
    count: int,
    radius: float,
    *,
    reach: float,
    size: float,
    haemoglobin: float,
    dye: tuple[float, float],
    rng: np.random.Generator,
) -> Float32:
    """Make granules within `reach` of the radius, of about `size` of it."""
    spots = np.empty((count, 5), np.float32)
    spots[:, :2] = _in_disc(count, reach * radius, rng)
    spots[:, 2] = radius * size * rng.uniform(0.7, 1.3, count)
    spots[:, 3] = haemoglobin
    spots[:, 4] = rng.uniform(*dye, count)
    return spots


def _in_disc(count: int, radius: float, rng: np.random.Generator) -> Float64:
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    distance = radius * np.sqrt(rng.uniform(0.0, 1.0, count))
    points: Float64 = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points
