"""Composed clumps: what is in them is what was drawn, where a window around both cells shows them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.fit.clumps import ClumpMaker
from rbc_engine.training.fit.region_set import RegionSet
from rbc_engine.training.recipes import CHULA12

SETTINGS: ClassifierSettings = CHULA12.classifier
GROUND = np.array([220, 215, 210])
CELL = {0: np.array([90, 100, 110]), 1: np.array([120, 60, 100])}


def make_regions(sizes: list[tuple[float, float]]) -> RegionSet:
    """A frame a cell: an ellipse of the given half-width and half-height in its middle, of type 0 or 1 by turns."""
    rows, columns = np.mgrid[:320, :320] + 0.5
    frames, boxes = [], []
    for index, (rx, ry) in enumerate(sizes):
        frame = np.tile(GROUND.astype(np.uint8), (320, 320, 1))
        inside = ((columns - 160) / rx) ** 2 + ((rows - 160) / ry) ** 2 < 1
        frame[inside] = CELL[index % 2]
        frames.append(frame)
        boxes.append((160 - rx, 160 - ry, 160 + rx, 160 + ry))
    count = len(sizes)
    return RegionSet(
        frames=frames,
        frame_index=np.arange(count, dtype=np.int32),
        canvas_scales=np.full(count, 0.5, np.float32),
        boxes=np.array(boxes, np.float32),
        types=np.array([[i % 2 == 0, i % 2 == 1] for i in range(count)]),
        cells=np.ones(count, np.int64),
        groups=np.array([str(i // 2) for i in range(count)]),
    )


def draw(maker: ClumpMaker, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    patches, types = maker.draw(
        count, size_px=64, settings=SETTINGS, threads=1, rng=np.random.default_rng(seed)
    )
    colours = patches * np.array(SETTINGS.std_rgb)[:, None, None]
    return colours + np.array(SETTINGS.mean_rgb)[:, None, None], types


def test_two_cells_stand_in_the_patch_and_are_named():
    maker = ClumpMaker(make_regions([(26, 24), (22, 27), (30, 20), (25, 25)]), np.full(4, 0.25))
    pictures, types = draw(maker, 60, 0)
    for picture, held in zip(pictures, types, strict=True):
        dark = np.abs(picture - GROUND[:, None, None]).sum(axis=0) > 60
        labels, _ = ndimage.label(dark, np.ones((3, 3)))
        sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
        assert 1 <= (sizes > 20).sum() <= 2  # overlapping, or apart by a hair
        seen = {
            kind
            for kind, colour in CELL.items()
            if (np.abs(picture - colour[:, None, None]).sum(axis=0) < 40).sum() > 100
        }
        # The darker of two channels is kept where cells overlap, so a whole cell of each type is left to see.
        assert seen == set(np.flatnonzero(held))
        edge = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
        assert edge.mean() < 0.25  # shifts may cut a cell, as they do with real regions


def test_a_clump_covers_about_what_its_cells_do():
    maker = ClumpMaker(make_regions([(25, 25), (25, 25)]), np.full(2, 0.5))
    pictures, _ = draw(maker, 200, 1)
    dark = np.abs(pictures - GROUND[:, None, None]).sum(axis=1) > 60
    # On the canvas a cell covers pi * 12.5^2 px, and the window is 1.1 times two touching cells wide.
    share = dark.mean()
    two_cells = 2 * np.pi * 12.5**2 / (1.1 * 46) ** 2
    assert 0.75 * two_cells < share < 1.25 * two_cells


def test_the_same_generator_gives_the_same_clumps_and_groups_are_kept():
    regions = make_regions([(25, 25), (22, 22), (28, 20), (20, 28)])
    maker = ClumpMaker(regions, np.array([1.0, 0, 0, 0]))
    first, second = draw(maker, 8, 3), draw(maker, 8, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    # Only the first is ever drawn first, and its partner is itself or of its smear: the third type never shows.
    assert first[1][:, 0].all()


@pytest.mark.parametrize("cells", [[1, 1, 2, 2], [2, 2, 1, 1]])
def test_regions_of_several_cells_are_never_used(cells: list[int]):
    regions = make_regions([(25, 25), (22, 22), (28, 20), (20, 28)])
    marked = RegionSet(
        frames=regions.frames,
        frame_index=regions.frame_index,
        canvas_scales=regions.canvas_scales,
        boxes=regions.boxes,
        types=np.eye(4, dtype=bool),
        cells=np.array(cells),
        groups=regions.groups,
    )
    _, types = draw(ClumpMaker(marked, np.full(4, 0.25)), 50, 4)
    assert set(np.flatnonzero(types.any(axis=0))) == set(np.flatnonzero(np.array(cells) == 1))
