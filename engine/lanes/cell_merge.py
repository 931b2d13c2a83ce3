"""The single cells of a slide's tiles as those of the slide, and its regions made of them anew.

Cells are smaller than the overlap of neighbouring tiles, so that nearly every one is whole in some
tile, and TileMerge takes each once. A region may be larger than a tile: which cells touch is
decided over the whole slide. Its types come from the tile whose region is nearest to it or, if no
tile saw nearly all of it, from all tiles that saw a part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.lanes.canvas import at_border
from rbc_engine.lanes.stages.call import called
from rbc_engine.lanes.stages.crop import over_regions
from rbc_engine.lanes.stages.group import counted, group_cells
from rbc_engine.lanes.tile_merge import TileMerge
from rbc_engine.lanes.tiles import Tile, TilePlan
from rbc_engine.packs.manifest import Manifest
from rbc_engine.types.arrays import Float32
from rbc_engine.types.cells import Cells
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["CellMerge", "open_merge"]

_SAME_IOU = 0.8
"""A tile's region with this overlap is the slide's region: the detector errs by a pixel or two."""


def open_merge(plan: TilePlan, settings: Manifest) -> TileMerge | CellMerge:
    """Open the merge that fits what the pack's detector finds: regions or cells."""
    if settings.detector.unit == "cell":
        return CellMerge(plan, settings)
    return TileMerge(plan, nms_iou=settings.detector.nms_iou, types=len(settings.types))


class CellMerge:
    """Merge the regions of the tiles of one slide, and their cells, in any order."""

    def __init__(self, plan: TilePlan, settings: Manifest) -> None:
        self._plan = plan
        self._settings = settings
        self._merge = TileMerge(plan, nms_iou=settings.detector.nms_iou, types=len(settings.types))

    def add(self, tile: Tile, regions: Regions) -> None:
        """Add the regions of a tile, with boxes in pixels of the tile."""
        self._merge.add(tile, _as_rows(regions))

    def finish(self) -> Regions:
        """Return the regions of the slide, surest first, each with its cells.

        Call it once, when every tile was added.
        """
        rows = self._merge.merged()
        grouped = group_cells(
            rows.boxes, rows.scores, rows.kinds, touching=self._settings.detector.touching
        )
        count = len(grouped.boxes)
        order = np.argsort(grouped.region_of, kind="stable")
        rows, region = rows.take(order), grouped.region_of[order]
        probabilities = over_regions(rows.probabilities, region, count)
        abnormal_p = over_regions(rows.abnormal_p, region, count)
        nearest, iou = _nearest(rows.cells.boxes, region, grouped.boxes)
        same = iou >= _SAME_IOU
        probabilities[same] = rows.probabilities[nearest[same]]
        abnormal_p[same] = rows.abnormal_p[nearest[same]]
        flags = np.bitwise_or.reduceat(rows.flags, _begins(region)) if count else rows.flags
        plan = self._plan
        border = at_border(
            grouped.boxes,
            frame_hw=(plan.rows.length_px, plan.columns.length_px),
            scale=plan.canvas_scale,
        )
        return called(
            counted(grouped, border | ~same | ((flags & RegionFlag.BORDER) > 0)),
            probabilities=probabilities,
            abnormal_p=abnormal_p,
            blurred=(flags & RegionFlag.BLURRED) > 0,
            settings=self._settings,
        )


def _as_rows(regions: Regions) -> Regions:
    """Make every cell a region with the result of its own region.

    Its one `cell` is that region.
    """
    cells = regions.cells
    own = cells.region
    ones = np.ones(len(cells), np.int32)
    return Regions(
        boxes=cells.boxes,
        scores=cells.scores,
        kinds=cells.kinds,
        probabilities=regions.probabilities[own],
        has=regions.has[own],
        abnormal_p=regions.abnormal_p[own],
        abnormal=regions.abnormal[own],
        flags=regions.flags[own] & np.uint8(RegionFlag.BLURRED),
        cells_low=ones,
        cells_high=ones,
        cells=Cells(
            boxes=regions.boxes[own],
            scores=regions.scores[own],
            kinds=regions.kinds[own],
            region=np.arange(len(cells), dtype=np.int32),
        ),
    )


def _begins(region: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.diff(region, prepend=-1))


def _nearest(
    boxes: Float32, region: npt.NDArray[np.int64], of_regions: Float32
) -> tuple[npt.NDArray[np.intp], Float32]:
    """Find for each region the first row whose box overlaps most with it, and their IoU.

    boxes: float32 [N, 4]. region: int64 [N], ascending, of each row. of_regions: float32 [R, 4].
    """
    against = of_regions[region]
    sides = np.minimum(boxes[:, 2:], against[:, 2:]) - np.maximum(boxes[:, :2], against[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (boxes, against)]
    iou = (shared / np.maximum(areas[0] + areas[1] - shared, 1e-6)).astype(np.float32)
    order = np.lexsort((np.arange(len(iou)), -iou, region))
    nearest = order[_begins(region)]
    return nearest, iou[nearest]
