"""Place the cells of a rendered field: singles and groups that touch or overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import UsageError
from rbc_engine.sources.synthetic.outlines import depth_inside, points_on, radius_at
from rbc_engine.types.arrays import Float32

__all__ = ["place_cells"]

Points = npt.NDArray[np.float64]

_LARGEST_GROUP = 4
_CONTACT = (0.8, 0.98)
"""Distance of touching neighbours, as a share of the two radii that face each other."""
_DIRECTIONS = 24
_BATCH = 16
_BATCHES = 256
_EDGE_POINTS = 128


def place_cells(
    outlines: Sequence[Float32],
    *,
    touching: float,
    width: int,
    height: int,
    gap_px: float,
    rng: np.random.Generator,
) -> Points:
    """Return centres float64 [N, 2], x y in px, all within the field.

    outlines: N arrays of radii, see synthetic_outlines.
    touching: 0..1, share of the cells that lie in groups of two to four; one left over lies alone.
    gap_px: least free space between the cells of different groups.

    Raises UsageError if some group finds no free place.
    """
    centres = np.empty((len(outlines), 2), np.float64)
    ground = _Ground(width=width, height=height, gap_px=gap_px)
    placed = 0
    groups = _split(rng.permutation(len(outlines)), touching, rng)
    for members in sorted(groups, key=len, reverse=True):
        group = [outlines[member] for member in members]
        offsets = _arrange(group, rng)
        origin = ground.find_place(group, offsets, rng)
        if origin is None:
            raise UsageError(
                f"cells = {len(outlines)} do not fit into {width}x{height} px (room for {placed} "
                "was found); ask for fewer or smaller cells, more of them touching, or a larger "
                "field"
            )
        centres[members] = origin + offsets
        for outline, centre in zip(group, centres[members], strict=True):
            ground.occupy(outline, centre)
        placed += len(members)
    return centres


def _split(
    cells: npt.NDArray[np.intp], touching: float, rng: np.random.Generator
) -> list[npt.NDArray[np.intp]]:
    """Split cells into groups of two to four for `touching` of them, then singles."""
    groups = []
    left = round(touching * len(cells))
    start = 0
    while left >= 2:
        if left <= _LARGEST_GROUP:
            size = left
        else:
            size = min(int(rng.integers(2, _LARGEST_GROUP + 1)), left - 2)
        groups.append(cells[start : start + size])
        start += size
        left -= size
    return groups + [cells[index : index + 1] for index in range(start, len(cells))]


def _arrange(outlines: Sequence[Float32], rng: np.random.Generator) -> Points:
    """Return the centres of a group's cells about the first: each touches one placed before it.

    Outlines are star-shaped about their centres, so two cells whose facing radii add up to more
    than their distance overlap.
    """
    centres = np.zeros((len(outlines), 2))
    for index in range(1, len(outlines)):
        anchor = int(rng.integers(index))
        angles = rng.uniform(-np.pi, np.pi, _DIRECTIONS)
        facing = radius_at(outlines[anchor], angles) + radius_at(outlines[index], angles + np.pi)
        distance = facing * rng.uniform(*_CONTACT)
        candidates = centres[anchor] + distance[:, None] * np.stack(
            [np.cos(angles), np.sin(angles)], axis=1
        )
        to_others = candidates[:, None] - centres[:index]
        # Farthest from the nearest of the group: cells overlap, but do not lie on top of each
        # other.
        spread = np.hypot(to_others[..., 0], to_others[..., 1]).min(axis=1)
        centres[index] = candidates[_pick(spread, rng)]
    return centres


def _pick(spread: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """Pick one of the better half, so that neither long cells nor straight rows are favoured."""
    return int(rng.choice(np.argsort(spread)[len(spread) // 2 :]))


class _Ground:
    """Know which pixels of the field are taken by a cell or lie within the gap around one."""

    def __init__(self, *, width: int, height: int, gap_px: float) -> None:
        self._taken = np.zeros((height, width), np.bool_)
        self._size = np.array([width, height])
        self._gap_px = gap_px

    def occupy(self, outline: Float32, centre: Points) -> None:
        reach = float(outline.max()) + self._gap_px
        left, top = np.maximum(centre - reach, 0.0).astype(np.intp)
        right, bottom = np.minimum(centre + reach + 1.0, self._size).astype(np.intp)
        x = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - centre[0])
        y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - centre[1])
        self._taken[top:bottom, left:right] |= depth_inside(outline, x, y) >= -self._gap_px

    def find_place(
        self, group: Sequence[Float32], offsets: Points, rng: np.random.Generator
    ) -> Points | None:
        """Return a random origin at which the group is free of all others and every centre lies in
        the field.
        """
        edges = [points_on(outline, _EDGE_POINTS) for outline in group]
        probes = np.concatenate(
            [offsets, *(edge + offset for edge, offset in zip(edges, offsets, strict=True))]
        )
        for _ in range(_BATCHES):
            origins = rng.uniform(0.0, self._size, size=(_BATCH, 2))
            pixels = np.floor(origins[:, None] + probes).astype(np.intp)
            within = ((pixels >= 0) & (pixels < self._size)).all(axis=2)
            nearest = np.clip(pixels, 0, self._size - 1)
            taken = self._taken[nearest[..., 1], nearest[..., 0]] & within
            free = within[:, : len(group)].all(axis=1) & ~taken.any(axis=1)
            if free.any():
                place: Points = origins[free.argmax()]
                return place
        return None
