"""Clumps composed of single cells whose types are known: touching and overlapping cells are few in labelled smears."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.fit.region_set import RegionSet
from rbc_engine.types.arrays import Float32

__all__ = ["ClumpMaker"]

# Of the boxes' mean half-width and half-height: below 1 + 1 the cells overlap, as in a smear they seldom do by much.
_NEAREST, _FARTHEST = 1.5, 2.05
# The pixels of a pasted cell fade out between these radii of the ellipse in its box.
_INNER, _OUTER = 1.02, 1.18
_BACKGROUND_PERCENTILE = 92


class ClumpMaker:
    """Draws pairs of single cells, of one smear more often than not, and lays one beside the other."""

    def __init__(self, regions: RegionSet, chances: npt.NDArray[np.float64]) -> None:
        """chances: float64 [R], how often each region is to be drawn; regions of several cells never are."""
        self._regions = regions
        self._singles = np.flatnonzero(regions.cells == 1)
        self._chances = chances[self._singles] / max(chances[self._singles].sum(), 1e-12)
        self._by_group = {
            group: np.flatnonzero((regions.groups == group) & (regions.cells == 1))
            for group in np.unique(regions.groups)
        }

    def draw(
        self,
        count: int,
        *,
        size_px: int,
        settings: ClassifierSettings,
        threads: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """Patches float32 [count, 3, size_px, size_px], normalised, and the types bool [count, T] in each."""
        first, second = self.pairs(count, rng)
        return self.compose(
            first, second, size_px=size_px, settings=settings, threads=threads, rng=rng
        )

    def pairs(
        self, count: int, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Indices of the first and the second cell of each clump, int64 [count] each."""
        first = rng.choice(self._singles, count, p=self._chances)
        second = np.array([self._partner(index, rng) for index in first], np.int64)
        return first, second

    def compose(
        self,
        first: npt.NDArray[np.int64],
        second: npt.NDArray[np.int64],
        *,
        size_px: int,
        settings: ClassifierSettings,
        threads: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """Lays each second cell beside its first one; what it returns is as in `draw`."""
        regions = self._regions
        count = len(first)
        # In canvas px, so that cells of fields of different scales keep their true sizes.
        scale = np.stack([regions.canvas_scales[index] for index in (first, second)])[..., None]
        boxes = np.stack([regions.boxes[first], regions.boxes[second]]) * scale
        half = (boxes[..., 2:] - boxes[..., :2]) / 2
        centre = (boxes[..., 2:] + boxes[..., :2]) / 2
        angle = rng.uniform(0, 2 * np.pi, count)
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        # Radius of each box's ellipse along the direction.
        reach = 1 / np.sqrt(((direction / np.maximum(half, 1)) ** 2).sum(axis=2))
        distance = reach.sum(axis=0) * rng.uniform(_NEAREST, _FARTHEST, count) / 2
        offset = direction * distance[:, None]  # from the first cell's centre to the second's

        low = np.minimum(-half[0], offset - half[1])
        high = np.maximum(half[0], offset + half[1])
        side = (high - low).max(axis=1) * settings.window_margin
        if settings.window_canvas_px is not None:
            side = np.maximum(side, settings.window_canvas_px)
        side = side * np.exp(rng.uniform(-0.06, 0.06, count))
        middle = (low + high) / 2 + side[:, None] * rng.uniform(-0.07, 0.07, (count, 2))
        patches = []
        for cell, index, shift in ((0, first, middle), (1, second, middle - offset)):
            at = centre[cell] + shift
            windows = np.concatenate([at - side[:, None] / 2, at + side[:, None] / 2], axis=1)
            patches.append(
                regions.cut(
                    index,
                    (windows / scale[cell]).astype(np.float32),
                    size_px=size_px,
                    settings=settings,
                    threads=threads,
                )
            )
        base, pasted = patches
        # Light that passes two cells is dimmed twice; the darker of the two is close, and never leaves the range.
        pasted = pasted + _background(base) - _background(pasted)
        weight = _ellipse(offset - middle, half[1], side, size_px)[:, None]
        clump = base + weight * (np.minimum(base, pasted) - base)
        return clump.astype(np.float32), regions.types[first] | regions.types[second]

    def _partner(self, index: int, rng: np.random.Generator) -> int:
        same = self._by_group[self._regions.groups[index]]
        if rng.random() < 0.6:
            return int(rng.choice(same))
        return int(rng.choice(self._singles, p=self._chances))


def _background(patches: Float32) -> Float32:
    """The level beside the cells, float32 [N, 3, 1, 1]."""
    level: Float32 = np.percentile(
        patches, _BACKGROUND_PERCENTILE, axis=(2, 3), keepdims=True
    ).astype(np.float32)
    return level


def _ellipse(
    centre: npt.NDArray[np.float64],
    half: npt.NDArray[np.float64],
    side: npt.NDArray[np.float64],
    size_px: int,
) -> Float32:
    """float32 [N, size_px, size_px], 1 inside an ellipse about `centre` (from the patch's middle), 0 outside."""
    at = ((np.arange(size_px) + 0.5) / size_px - 0.5) * side[:, None]  # [N, P]
    x = (at - centre[:, :1]) / half[:, :1]
    y = (at - centre[:, 1:]) / half[:, 1:]
    radius = np.sqrt(x[:, None, :] ** 2 + y[:, :, None] ** 2)
    weight: Float32 = np.clip((_OUTER - radius) / (_OUTER - _INNER), 0, 1).astype(np.float32)
    return weight
