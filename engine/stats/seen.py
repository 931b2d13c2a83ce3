"""Find the regions of a field that an earlier, overlapping field shows, by the position of the
stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.stats.stage_map import StageMap
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["Overlap", "Seen", "SeenRegions"]

_SAME_SHARE = 0.5
"""Two boxes show one region if they share at least this much of the smaller one: a cell that the
border cuts then matches the whole one, and two neighbours, which share little, remain two."""


@dataclass(eq=False, kw_only=True)
class Seen:
    """Hold the counted regions of one field.

    boxes_um: float64 [R, 4]. cut: bool [R], at the border of their field.
    """

    boxes_um: npt.NDArray[np.float64]
    cut: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class Overlap:
    """Hold the result of `SeenRegions.add`.

    new: bool [R], the regions not seen before.
    better: bool [R], those of the others that were cut by the border before, and are whole now.
    """

    new: npt.NDArray[np.bool_]
    better: npt.NDArray[np.bool_]


class SeenRegions:
    """Remember all regions counted on one slide, about a hundred bytes each."""

    def __init__(self, stage: StageMap, *, stage_error_um: float) -> None:
        """Start empty. stage_error_um: largest error of the reported position, as in
        SlideMonitor.
        """
        self._stage = stage
        self._error_um = stage_error_um
        self._fields: list[Seen] = []
        self._extents_um = np.zeros((16, 4), np.float64)

    def add(
        self, regions: Regions, *, frame_hw: tuple[int, int], position_um: tuple[float, float]
    ) -> Overlap:
        """Compare a field with all earlier ones that it overlaps, and remember its new regions."""
        boxes_um = self._stage.boxes_um(regions.boxes, frame_hw=frame_hw, position_um=position_um)
        whole_frame = np.array([[0, 0, frame_hw[1], frame_hw[0]]], np.float32)
        extent = self._stage.boxes_um(whole_frame, frame_hw=frame_hw, position_um=position_um)[0]
        cut = (regions.flags & RegionFlag.BORDER) > 0
        new = np.ones(len(regions), np.bool_)
        better = np.zeros(len(regions), np.bool_)
        for index in self._touching(extent):
            seen = self._fields[index]
            if not len(seen.boxes_um) or not new.any():
                continue
            shares = _shares(boxes_um, seen.boxes_um, error_um=self._error_um)
            # Surest first, the order of regions: each earlier region matches one of this field.
            for row in np.flatnonzero(new & (shares >= _SAME_SHARE).any(axis=1)).tolist():
                match = int(shares[row].argmax())
                if shares[row, match] < _SAME_SHARE:
                    continue
                shares[:, match] = 0
                new[row] = False
                if seen.cut[match] and not cut[row]:
                    better[row] = True
                    seen.boxes_um[match] = boxes_um[row]
                    seen.cut[match] = False
        if len(self._fields) == len(self._extents_um):
            self._extents_um = np.concatenate([self._extents_um, np.zeros_like(self._extents_um)])
        self._extents_um[len(self._fields)] = extent
        self._fields.append(Seen(boxes_um=boxes_um[new], cut=cut[new]))
        return Overlap(new=new, better=better)

    def _touching(self, extent: npt.NDArray[np.float64]) -> list[int]:
        others = self._extents_um[: len(self._fields)]
        extent = extent + self._error_um * np.array([-1.0, -1.0, 1.0, 1.0])
        apart = (others[:, :2] >= extent[2:]).any(axis=1) | (others[:, 2:] <= extent[:2]).any(
            axis=1
        )
        return [int(index) for index in np.flatnonzero(~apart)]


def _shares(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], *, error_um: float
) -> npt.NDArray[np.float64]:
    """Return float64 [A, B], the area that two boxes share relative to the smaller one, if they are
    shifted by up to error_um along each axis towards each other.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides_a, sides_b = (boxes[:, 2:] - boxes[:, :2] for boxes in (a, b))
    most = np.minimum(sides_a[:, None], sides_b[None, :])
    shared = np.clip(high - low + error_um, 0, most).prod(axis=2)
    smaller = np.minimum(sides_a.prod(axis=1)[:, None], sides_b.prod(axis=1)[None, :])
    return np.asarray(shared / np.maximum(smaller, 1e-12))
