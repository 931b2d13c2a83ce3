"""Group detections into regions: touching red cells are one region, any other kind is its own.

Where the pack's detector finds regions, each detection is one, and the number of its cells is
estimated from its area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.lanes.canvas import at_border
from rbc_engine.lanes.stages.detect import Detections
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.types.arrays import Float32, Int32, UInt8
from rbc_engine.types.cells import Cells, count_cells
from rbc_engine.types.kinds import are_red

__all__ = ["SURE", "FoundRegions", "Grouped", "counted", "group", "group_cells", "near_pairs"]

SURE = 0.5
"""A cell of this score or more surely is one."""

_NESTED = 0.9
"""A box of which more than this lies in another of its kind is part of it."""

_LEAST_HALF_PX = 1e-3

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False, kw_only=True)
class Grouped:
    """Hold the R regions of one frame, surest first, ties in the order of their boxes.

    boxes: float32 [R, 4], the smallest around the cells. scores: float32 [R], of the surest cell.
        kinds: uint8 [R].
    cells: at least one a region, and just one of a region that is not red.
    region_of: int64 [N], the row of the region that each detection went into, in the order they
        came.
    """

    boxes: Float32
    scores: Float32
    kinds: UInt8
    cells: Cells
    region_of: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class FoundRegions(Grouped):
    """Hold the R regions of one frame as known before they are classified.

    border: bool [R], the box touches the edge of the frame. clump: bool [R], more than one cell,
        likely.
    cells_low, cells_high: int32 [R], the fewest and the most cells that each may hold.
    """

    border: npt.NDArray[np.bool_]
    clump: npt.NDArray[np.bool_]
    cells_low: Int32
    cells_high: Int32


def group(
    found: Detections, *, frame_hw: tuple[int, int], scale: float, settings: DetectorSettings
) -> FoundRegions:
    """Make the regions of a frame from its detections.

    scale: canvas px per frame px, of the canvas they were found on. settings: of the pack; say what
        a detection is.
    """
    kinds = settings.kind_numbers[found.classes]
    if settings.unit == "cell":
        grouped = group_cells(found.boxes, found.scores, kinds, touching=settings.touching)
        border = at_border(grouped.boxes, frame_hw=frame_hw, scale=scale)
        return counted(grouped, border)
    border = at_border(found.boxes, frame_hw=frame_hw, scale=scale)
    counts = count_cells(found.boxes, cut=border, kinds=kinds)
    alone = np.flatnonzero(~counts.clump)
    return FoundRegions(
        boxes=found.boxes,
        scores=found.scores,
        kinds=kinds,
        border=border,
        clump=counts.clump,
        cells_low=counts.low,
        cells_high=counts.high,
        region_of=np.arange(len(found.boxes)),
        cells=Cells(
            boxes=found.boxes[alone],
            scores=found.scores[alone],
            kinds=kinds[alone],
            region=alone.astype(np.int32),
        ),
    )


def counted(grouped: Grouped, border: npt.NDArray[np.bool_]) -> FoundRegions:
    """Count the cells of regions made of cells: at least the sure ones, at most all.

    border: bool [R].
    """
    count = len(grouped.boxes)
    cells = grouped.cells
    sure = np.bincount(cells.region[cells.scores >= SURE], minlength=count)
    low = np.maximum(sure, 1).astype(np.int32)
    return FoundRegions(
        boxes=grouped.boxes,
        scores=grouped.scores,
        kinds=grouped.kinds,
        border=border,
        clump=low > 1,
        cells_low=low,
        cells_high=cells.per_region(count),
        region_of=grouped.region_of,
        cells=cells,
    )


def group_cells(boxes: Float32, scores: Float32, kinds: UInt8, *, touching: float) -> Grouped:
    """Join cells into regions, whatever the order of the cells.

    Red cells touch where the ellipses inscribed in their boxes, scaled by `touching`, meet on the
    line between their centres; what touches, also by way of others, is one region. Of two regions
    of one kind neither lies in the other: they are joined until that holds. Joined regions of a
    kind other than red are one cell.

    boxes: float32 [N, 4], x0 y0 x1 y1. scores: float32 [N]. kinds: uint8 [N], of Kind.
    """
    if not len(boxes):
        none = np.zeros(0, np.int64)
        return Grouped(boxes=boxes, scores=scores, kinds=kinds, cells=Cells.empty(), region_of=none)
    label = _of_touching(boxes, are_red(kinds), touching)
    while True:
        _, members, group = np.unique(label, return_index=True, return_inverse=True)
        unions = _unions(boxes, group)
        first, second = _nested(unions, kinds[members])
        if not len(first):
            break
        label = _components(len(unions), first, second)[group]
    kind = kinds[members]
    score = np.zeros(len(unions), np.float32)
    np.maximum.at(score, group, scores)
    x0, y0, x1, y1 = unions.T
    order = np.lexsort((kind, y1, x1, y0, x0, -score))
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    red, others = are_red(kinds), order[~are_red(kind[order])]
    return Grouped(
        boxes=unions[order],
        scores=score[order],
        kinds=kind[order],
        cells=Cells.in_order(
            boxes=np.concatenate([boxes[red], unions[others]]),
            scores=np.concatenate([scores[red], score[others]]),
            kinds=np.concatenate([kinds[red], kind[others]]),
            region=np.concatenate([place[group[red]], place[others]]),
        ),
        region_of=place[group].astype(np.int64),
    )


def near_pairs(boxes: npt.NDArray[np.floating[Any]]) -> tuple[Ints, Ints]:
    """Find the pairs of boxes that share a point: int [P] each, every pair once, in no order.

    boxes: float [N, 4], x0 y0 x1 y1. They are cut into strips across y, and sorted along x in each.
    """
    none = np.zeros(0, np.intp)
    if len(boxes) < 2:
        return none, none
    x0, y0, x1, y1 = boxes.astype(np.float64).T
    height = max(float((y1 - y0).mean()), float((y1 - y0).max()) / 64, 1e-3)
    low = np.floor((y0 - y0.min()) / height).astype(np.int64)
    spans = np.floor((y1 - y0.min()) / height).astype(np.int64) - low + 1
    row = np.repeat(np.arange(len(boxes)), spans)
    begins = np.cumsum(spans) - spans
    strip = low[row] + np.arange(len(row)) - begins[row]
    # Strips side by side on one axis, too far apart for a box to reach the next one.
    beside = strip * (2 * float(x1.max() - x0.min()) + 1.0)
    left, right = beside + x0[row] - x0.min(), beside + x1[row] - x0.min()
    order = np.argsort(left, kind="stable")
    ends = np.searchsorted(left[order], right[order], "right")
    after = np.arange(1, len(order) + 1)
    counts = ends - after
    starts = np.cumsum(counts) - counts
    here = np.repeat(np.arange(len(order)), counts)
    there = np.arange(len(here)) - starts[here] + after[here]
    first, second, of_strip = row[order[here]], row[order[there]], strip[order[here]]
    # A pair that shares several strips is that of the first of them.
    meet = (np.maximum(low[first], low[second]) == of_strip) & (
        np.maximum(y0[first], y0[second]) <= np.minimum(y1[first], y1[second])
    )
    return first[meet], second[meet]


def _of_touching(boxes: Float32, red: npt.NDArray[np.bool_], touching: float) -> Ints:
    """Label each cell int [N]: the same for red cells that touch, its own for the others."""
    rows = np.flatnonzero(red)
    own = boxes[rows].astype(np.float64)
    centres = (own[:, :2] + own[:, 2:]) / 2
    halves = np.maximum((own[:, 2:] - own[:, :2]) / 2, _LEAST_HALF_PX)
    reach = np.concatenate([centres - touching * halves, centres + touching * halves], axis=1)
    first, second = near_pairs(reach)
    apart = centres[second] - centres[first]
    distance = np.sqrt((apart**2).sum(axis=1))
    # How far each ellipse reaches towards the other's centre.
    towards = apart / np.maximum(distance, 1e-12)[:, None]
    reached = sum(
        1 / np.maximum(np.sqrt(((towards / halves[side]) ** 2).sum(axis=1)), 1e-12)
        for side in (first, second)
    )
    meet = distance <= touching * reached
    label = np.arange(len(boxes))
    label[rows] = rows[_components(len(rows), first[meet], second[meet])]
    return label


def _unions(boxes: Float32, group: Ints) -> Float32:
    """Bound the boxes of each group, float32 [G, 4].

    group: int [N], 0..G-1, none of them empty.
    """
    order = np.argsort(group, kind="stable")
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    sorted_boxes = boxes[order]
    return np.concatenate(
        [
            np.minimum.reduceat(sorted_boxes[:, :2], begins),
            np.maximum.reduceat(sorted_boxes[:, 2:], begins),
        ],
        axis=1,
    )


def _nested(boxes: Float32, kinds: UInt8) -> tuple[Ints, Ints]:
    """Find pairs of one kind of which one lies in the other, int [P] each."""
    first, second = near_pairs(boxes)
    alike = kinds[first] == kinds[second]
    first, second = first[alike], second[alike]
    a, b = boxes[first].astype(np.float64), boxes[second].astype(np.float64)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    areas = np.minimum((a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1))
    inside = np.clip(sides, 0, None).prod(axis=1) > _NESTED * areas
    return first[inside], second[inside]


def _components(count: int, first: Ints, second: Ints) -> Ints:
    """Label connected components, int [count], by the lowest index of each.

    first, second: int [P], the connections.
    """
    label = np.arange(count)
    while True:
        a, b = label[first], label[second]
        lower = np.minimum(a, b)
        joined = label.copy()
        np.minimum.at(joined, a, lower)
        np.minimum.at(joined, b, lower)
        while not np.array_equal(shorter := joined[joined], joined):
            joined = shorter
        if np.array_equal(joined, label):
            return label
        label = joined
