"""Merge the regions of a slide's tiles into those of the slide: each once, and whole, wherever a
tile's border runs.

How duplicates are found, with T a tile, its core the part nearer to it than to its neighbours
(TilePlan.core), and its inner edges those that are not edges of the slide:

- A box that keeps clear of T's inner edges is whole in T; any other is a part.
- A whole box whose centre lies in T's core is T's own and is taken. Any other belongs to the tile
in whose core its
  centre lies; T's is a spare, wanted if that tile cannot see it whole, or if the centre is so close
  to the border of the core that each tile may leave it to the other.
- A region that two tiles took is taken once: boxes of two tiles are the same region if they overlap
by more than the
  detector's own NMS allows. If one tile saw one region and the other saw parts of it as several,
  the tile that sees more of it takes precedence, then the surer one.
- Of a region larger than the overlap there may be parts only. A part that lies well inside another
tile is left to that
  tile. The others are joined if they agree where the two tiles overlap. The joined box gets the
  types of its largest part, and the flag `border`, since no tile saw the whole.

None of it depends on the order of tiles, or on which of them were run at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rbc_engine.lanes.tiles import Tile, TilePlan
from rbc_engine.types.arrays import Float32
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["TileMerge"]

_EDGE_CANVAS_PX = 4.0
"""A box that ends this close to an inner edge is assumed to be cut: more than the detector's
error.
"""

_CENTRE_CANVAS_PX = 8.0
"""Largest distance of the centres that two tiles give one region: a third of a cell."""

_COVERED_SHARE = 0.7
"""A box is not a region of its own if this share of it lies in one that its tile did not see, or
saw in part.
"""

Bools = npt.NDArray[np.bool_]


@dataclass(eq=False, kw_only=True)
class _Seen:
    """Hold what one tile saw.

    regions: boxes in level-0 px. extent, core: float32 [4]. whole, own, taken: bool [R].
    """

    tile: Tile
    regions: Regions
    extent: Float32
    core: Float32
    whole: Bools
    own: Bools
    taken: Bools

    @property
    def boxes(self) -> Float32:
        return self.regions.boxes


class TileMerge:
    """Take the regions of the tiles of one slide, in any order; memory grows with the regions, not
    with the tiles.

    nms_iou: the detector's; types: T.
    """

    def __init__(self, plan: TilePlan, *, nms_iou: float, types: int) -> None:
        self._plan = plan
        self._nms_iou = nms_iou
        self._types = types
        self._edge_px = _EDGE_CANVAS_PX / plan.canvas_scale
        self._centre_px = _CENTRE_CANVAS_PX / plan.canvas_scale
        self._seen: dict[tuple[int, int], _Seen] = {}

    def add(self, tile: Tile, regions: Regions) -> None:
        """Add a tile. regions: boxes in pixels of the tile."""
        if not len(regions):
            return
        x0, y0 = tile.box[:2]
        regions = regions.shifted(x0, y0)
        boxes = regions.boxes
        extent, core = self._plan.extent(tile), self._plan.core(tile)
        whole = _inside(boxes, extent, margin=self._edge_px)
        self._seen[tile.row, tile.column] = _Seen(
            tile=tile,
            regions=regions,
            extent=extent,
            core=core,
            whole=whole,
            own=whole & _centres_inside(boxes, core),
            taken=np.zeros(len(boxes), np.bool_),
        )

    def finish(self) -> Regions:
        """Return the regions of the slide, surest first. Call it once, after the last tile.

        How many cells a region holds is estimated from its area, compared with all regions.
        """
        return self.merged().recounted()

    def merged(self) -> Regions:
        """Return regions as `finish` does, with the tiles' results.

        A region joined from parts has the result of its largest part.
        """
        tiles = [self._seen[key] for key in sorted(self._seen)]
        if not tiles:
            return Regions.empty(self._types)
        for seen in tiles:
            seen.taken = seen.own.copy()
        for seen in tiles:
            for other in self._neighbours(seen):
                if (seen.tile.row, seen.tile.column) < (other.tile.row, other.tile.column):
                    self._settle(seen, other)
        self._take_spares(tiles)
        found = [seen.regions.take(seen.taken) for seen in tiles]
        found += self._joined(tiles)
        merged = Regions.concatenate(found)
        x0, y0, x1, y1 = merged.boxes.T
        return merged.take(np.lexsort((y1, x1, y0, x0, -merged.scores)))

    def _neighbours(self, seen: _Seen) -> list[_Seen]:
        row, column = seen.tile.row, seen.tile.column
        keys = [(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        return [self._seen[key] for key in keys if key != (row, column) and key in self._seen]

    def _settle(self, a: _Seen, b: _Seen) -> None:
        """Give up one where two neighbours took the same region, or one took a region and the other
        parts of it.
        """
        mine = np.flatnonzero(a.taken & _touching(a.boxes, b.extent))
        theirs = np.flatnonzero(b.taken & _touching(b.boxes, a.extent))
        if not len(mine) or not len(theirs):
            return
        iou, share = _overlaps(a.boxes[mine], b.boxes[theirs])
        same = iou > self._nms_iou
        # A box that the other tile saw too is not part of something else.
        known_to_b = _matched(a.boxes[mine], b.boxes, self._nms_iou)
        known_to_a = _matched(b.boxes[theirs], a.boxes, self._nms_iou)
        split = (share >= _COVERED_SHARE) & ~known_to_b[:, None] & ~known_to_a[None, :]
        for i, j in np.argwhere(same | split).tolist():
            m, t = int(mine[i]), int(theirs[j])
            if not (a.taken[m] and b.taken[t]):
                continue
            a_sees, b_sees = (
                bool(_inside(boxes, extent, margin=self._edge_px)[0])
                for boxes, extent in ((b.boxes[[t]], a.extent), (a.boxes[[m]], b.extent))
            )
            keep_a = (a_sees, float(a.regions.scores[m])) >= (b_sees, float(b.regions.scores[t]))
            (b.taken if keep_a else a.taken)[t if keep_a else m] = False

    def _take_spares(self, tiles: Sequence[_Seen]) -> None:
        """Take whole boxes that do not belong to their tile, if the tile to which they belong does
        not have them.
        """
        spares: list[tuple[tuple[float, ...], _Seen, int]] = []
        for seen in tiles:
            for index in np.flatnonzero(seen.whole & ~seen.own).tolist():
                box = seen.boxes[index]
                if self._is_wanted(seen, box):
                    order = (-float(seen.regions.scores[index]), *map(float, box))
                    spares.append((order, seen, index))
        for _, seen, index in sorted(spares, key=lambda spare: spare[0]):
            box = seen.boxes[[index]]
            if not any(
                _matched(box, other.boxes[other.taken], self._nms_iou)[0]
                or self._covered(box, seen, other)
                for other in [seen, *self._neighbours(seen)]
            ):
                seen.taken[index] = True

    def _covered(self, box: Float32, seen: _Seen, other: _Seen) -> bool:
        """Return whether most of a spare box lies in, or holds most of, one that the other tile
        took and its own tile did not
        see: then the two tiles cut up the same cells differently."""
        if other is seen:
            return False
        rivals = other.boxes[other.taken & _touching(other.boxes, box[0])]
        if not len(rivals) or _matched(box, other.boxes, self._nms_iou)[0]:
            return False
        _, share = _overlaps(box, rivals)
        unknown = ~_matched(rivals, seen.boxes, self._nms_iou)
        fits = _inside(rivals, seen.extent, margin=self._edge_px)
        return bool((unknown & fits & (share[0] >= _COVERED_SHARE)).any())

    def _is_wanted(self, seen: _Seen, box: Float32) -> bool:
        """Return whether a spare box may replace one missing in the tile in whose core its centre
        lies.
        """
        if _centres_inside(box[None], _grown(seen.core, self._centre_px))[0]:
            return True
        row, column = seen.tile.row, seen.tile.column
        centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        column += int(centre_x >= seen.core[2]) - int(centre_x < seen.core[0])
        row += int(centre_y >= seen.core[3]) - int(centre_y < seen.core[1])
        extent = self._plan.extent(self._plan.tile(row, column))
        if not _inside(box[None], extent, margin=self._edge_px)[0]:
            return True
        owner = self._seen.get((row, column))
        if owner is None:
            return False
        # It may have seen more in one, and left that to this tile.
        left = owner.boxes[owner.whole & ~owner.own & _touching(owner.boxes, box)]
        return bool(len(left) and (_overlaps(box[None], left)[1] >= _COVERED_SHARE).any())

    def _joined(self, tiles: Sequence[_Seen]) -> list[Regions]:
        """Return regions of which every tile saw a part."""
        parts = [(seen, index) for seen in tiles for index in self._parts(seen)]
        group = list(range(len(parts)))

        def root(index: int) -> int:
            while group[index] != index:
                index = group[index]
            return index

        by_tile: dict[tuple[int, int], list[int]] = {}
        for number, (seen, _) in enumerate(parts):
            by_tile.setdefault((seen.tile.row, seen.tile.column), []).append(number)
        for number, (seen, index) in enumerate(parts):
            for other in self._neighbours(seen):
                for rival in by_tile.get((other.tile.row, other.tile.column), []):
                    if rival > number and self._agree(seen, index, other, parts[rival][1]):
                        group[root(rival)] = root(number)
        members: dict[int, list[int]] = {}
        for number in range(len(parts)):
            members.setdefault(root(number), []).append(number)
        return [self._union([parts[number] for number in group]) for group in members.values()]

    def _parts(self, seen: _Seen) -> list[int]:
        """Return the boxes that a tile's inner edges cut, that no other tile sees more of, and that
        no whole one explains.
        """
        cut = ~seen.whole
        others = self._neighbours(seen)
        for row in range(seen.tile.row - 1, seen.tile.row + 2):
            for column in range(seen.tile.column - 1, seen.tile.column + 2):
                inside = 0 <= row < self._plan.rows.count and 0 <= column < self._plan.columns.count
                if inside and (row, column) != (seen.tile.row, seen.tile.column):
                    extent = self._plan.extent(self._plan.tile(row, column))
                    cut &= ~_inside(seen.boxes, extent, margin=self._edge_px)
        kept = []
        for index in np.flatnonzero(cut).tolist():
            box = seen.boxes[[index]]
            if not any(
                self._explained(box, seen, other.boxes[other.taken]) for other in [seen, *others]
            ):
                kept.append(index)
        return kept

    def _explained(self, part: Float32, seen: _Seen, taken: Float32) -> bool:
        """Return whether a taken box, as far as the part's tile sees it, is the part, or covers
        most of it.
        """
        near = taken[_touching(taken, part[0])]
        if not len(near):
            return False
        clipped = _clipped(near, seen.extent)
        iou, _ = _overlaps(part, clipped)
        covered = _shared_area(part, clipped)[0] / np.maximum(_areas(part)[0], 1e-6)
        return bool(((iou[0] > self._nms_iou) | (covered >= _COVERED_SHARE)).any())

    def _agree(self, a: _Seen, i: int, b: _Seen, j: int) -> bool:
        """Return whether two parts are of one region: they are the same in what both tiles see."""
        shared = np.concatenate(
            [np.maximum(a.extent[:2], b.extent[:2]), np.minimum(a.extent[2:], b.extent[2:])]
        )
        here, there = _clipped(a.boxes[[i]], shared), _clipped(b.boxes[[j]], shared)
        if min(_areas(here)[0], _areas(there)[0]) <= 0:
            return False
        iou, _ = _overlaps(here, there)
        return bool(iou[0, 0] > self._nms_iou)

    def _union(self, parts: Sequence[tuple[_Seen, int]]) -> Regions:
        boxes = np.array([seen.boxes[index] for seen, index in parts], np.float32)
        box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
        seen, index = parts[int(_areas(boxes).argmax())]
        one = seen.regions.take(np.array([index]))
        return replace(one, boxes=box[None], flags=one.flags | np.uint8(RegionFlag.BORDER))


def _inside(boxes: Float32, extent: Float32, *, margin: float) -> Bools:
    """Return which boxes lie in an extent, clear of its edges."""
    low = (boxes[:, :2] > extent[:2] + margin).all(axis=1)
    return np.asarray(low & (boxes[:, 2:] < extent[2:] - margin).all(axis=1))


def _centres_inside(boxes: Float32, core: Float32) -> Bools:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.asarray((centres >= core[:2]).all(axis=1) & (centres < core[2:]).all(axis=1))


def _touching(boxes: Float32, extent: Float32) -> Bools:
    low = (boxes[:, :2] < extent[2:]).all(axis=1)
    return np.asarray(low & (boxes[:, 2:] > extent[:2]).all(axis=1))


def _grown(extent: Float32, by: float) -> Float32:
    return extent + np.array([-by, -by, by, by], np.float32)


def _clipped(boxes: Float32, extent: Float32) -> Float32:
    low = np.maximum(boxes[:, :2], extent[:2])
    return np.concatenate([low, np.maximum(low, np.minimum(boxes[:, 2:], extent[2:]))], axis=1)


def _areas(boxes: Float32) -> Float32:
    areas: Float32 = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _shared_area(a: Float32, b: Float32) -> Float32:
    """Return the area that each pair shares, float32 [A, B]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared: Float32 = np.clip(high - low, 0, None).prod(axis=2)
    return shared


def _overlaps(a: Float32, b: Float32) -> tuple[Float32, Float32]:
    """Return float32 [A, B] each: the shared area relative to the union (IoU), and to the smaller
    box.
    """
    shared = _shared_area(a, b)
    area_a, area_b = _areas(a)[:, None], _areas(b)[None, :]
    iou: Float32 = shared / np.maximum(area_a + area_b - shared, np.float32(1e-6))
    share: Float32 = shared / np.maximum(np.minimum(area_a, area_b), np.float32(1e-6))
    return iou, share


def _matched(boxes: Float32, others: Float32, iou: float) -> Bools:
    """Return which boxes have a match among others, bool [A]."""
    if not len(others):
        return np.zeros(len(boxes), np.bool_)
    return np.asarray((_overlaps(boxes, others)[0] > iou).any(axis=1))
