"""Frames of any size: what shows more than a field is cut up, and every cell found once.

The lane here finds dark discs by labelling them, at most so many in a frame, as a detector does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from rbc_engine.lanes.views.any_size import AnySizeLane
from rbc_engine.lanes.views.lit_part import lit_part
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldResult

MANIFEST = Pack.open(find_pack("chula12")).manifest
TYPES = len(MANIFEST.types)
CELL_PX = 38
FIELD_HW = (480, 640)
UM = 0.192  # of a field of 640x480 px


class DiscLane:
    """most: how many regions it finds in a frame. sizes: of the frames it saw."""

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self.sizes: list[tuple[int, int]] = []

    def prepare(self) -> None: ...

    def close(self) -> None: ...

    def analyze(self, batch: Sequence[Decoded], *, keep_frames: bool = False) -> list[FieldResult]:
        return [self._one(decoded) for decoded in batch]

    def _one(self, decoded: Decoded) -> FieldResult:
        frame = decoded.frame
        if frame is None:
            return FieldResult.failed(decoded, decoded.error or "no frame")
        self.sizes.append((frame.height, frame.width))
        labels, _ = ndimage.label(frame.pixels[..., 1] < 150)
        found = ndimage.find_objects(labels)
        boxes = [(x.start, y.start, x.stop, y.stop) for y, x in found if y.stop - y.start > 5]
        boxes = boxes[: self.most]
        count = len(boxes)
        regions = Regions.by_area(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            scores=np.full(count, 0.9, np.float32),
            probabilities=np.zeros((count, TYPES), np.float32),
            has=np.zeros((count, TYPES), np.bool_),
            abnormal_p=np.zeros(count, np.float32),
            abnormal=np.zeros(count, np.bool_),
            flags=np.zeros(count, np.uint8),
        )
        return FieldResult(
            slide="s",
            field=frame.field,
            width=frame.width,
            height=frame.height,
            regions=regions,
            saturated=len(found) > self.most,
            um_per_px=frame.pixel_um or UM * 480 / min(frame.height, frame.width),
            um_per_px_from="given" if frame.pixel_um else "assumed",
        )


def mosaic(rows: int, columns: int, *, seed: int = 0, cell_px: int = CELL_PX) -> np.ndarray:
    """Fields side by side, of discs that lie apart, each with a rim darker than the background."""
    draw = np.random.default_rng(seed)
    height, width = rows * FIELD_HW[0], columns * FIELD_HW[1]
    step = int(cell_px * 1.6)
    pixels = np.full((height, width, 3), 225, np.uint8)
    ys, xs = np.mgrid[:cell_px, :cell_px] - (cell_px - 1) / 2
    disc = ys**2 + xs**2 < (cell_px / 2) ** 2
    for y in range(4, height - step, step):
        for x in range(4, width - step, step):
            if draw.random() < 0.8:
                down, right = draw.integers(0, step - cell_px - 2, 2)
                part = pixels[y + down : y + down + cell_px, x + right : x + right + cell_px]
                part[disc] = (200, 120, 140)
    return pixels


def boxes_of(result: FieldResult) -> set[tuple[int, ...]]:
    assert result.regions is not None, result.error
    boxes = [tuple(box) for box in np.rint(result.regions.boxes).astype(int).tolist()]
    assert len(set(boxes)) == len(boxes), "a region twice"
    return set(boxes)


def truth(pixels: np.ndarray) -> set[tuple[int, ...]]:
    labels, _ = ndimage.label(pixels[..., 1] < 150)
    return {(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)}


def analysed(
    pixels: np.ndarray, lane: DiscLane, *, um: float | None = None, estimate: bool = True
) -> FieldResult:
    frame = Frame(pixels=pixels, slide="s", field="f", pixel_um=um)
    sized = AnySizeLane(lane, MANIFEST, batch=2, estimate_scale=estimate)
    decoded = Decoded(ref=FieldRef(slide="s", field="f", path=Path("p")), frame=frame)
    (result,) = sized.analyze([decoded], keep_frames=True)
    assert result.frame is None or result.frame.pixels is pixels
    return result


@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), um=st.sampled_from([UM, None]))
def test_a_mosaic_has_the_regions_of_its_parts(rows, columns, um):
    pixels = mosaic(rows, columns, seed=rows * 10 + columns)
    lane = DiscLane(most=150)
    result = analysed(pixels, lane, um=um)
    assert boxes_of(result) == truth(pixels)
    assert not result.saturated
    assert (result.width, result.height) == pixels.shape[1::-1]
    if rows * columns > 1:
        assert len(lane.sizes) > 1
        assert max(max(hw) for hw in lane.sizes) <= 640
        assert result.um_per_px == pytest.approx(UM, rel=0.01)
        assert result.um_per_px_from == ("given" if um else "estimated")
    else:
        assert lane.sizes == [FIELD_HW]
        assert result.um_per_px_from == ("given" if um else "assumed")


def test_a_field_of_many_pixels_is_one_field():
    """At twice the magnification: cells twice as large."""
    lane = DiscLane()
    pixels = mosaic(2, 2, cell_px=2 * CELL_PX)
    assert boxes_of(analysed(pixels, lane)) == truth(pixels)
    assert lane.sizes == [(960, 1280)]


@pytest.mark.parametrize("estimate", [True, False])
def test_a_frame_that_fills_the_output_is_cut_up(estimate):
    pixels = mosaic(1, 1, cell_px=14)  # smaller than any cell of the assumed scale
    cells = len(truth(pixels))
    lane = DiscLane(most=cells * 2 // 3)
    result = analysed(pixels, lane, estimate=estimate)
    assert lane.sizes[0] == FIELD_HW
    assert boxes_of(result) == truth(pixels)
    assert not result.saturated
    stubborn = DiscLane(most=5)
    assert analysed(pixels, stubborn).saturated, "what cannot be mended so keeps its flag"


def test_without_an_estimate_a_large_frame_is_one_field():
    lane = DiscLane()
    analysed(mosaic(3, 3), lane, estimate=False)
    assert lane.sizes == [(1440, 1920)]


def test_crops_of_a_cell_are_refused_by_name():
    crop = mosaic(1, 1)[:80, :80].copy()
    result = analysed(crop, DiscLane())
    assert result.regions is None
    assert "f: 80x80 px, far smaller than a field" in str(result.error)
    assert "--um-per-px" in str(result.error)
    assert analysed(crop, DiscLane(), um=UM).regions is not None


def test_what_is_not_decoded_and_tiles_of_slides_pass_through():
    lane = DiscLane()
    sized = AnySizeLane(lane, MANIFEST, batch=2, estimate_scale=True)
    ref = FieldRef(slide="s", field="f", path=Path("p"))
    field = Frame(pixels=mosaic(1, 1), field="f")
    large = Frame(pixels=mosaic(2, 2), field="f")
    batch = [
        Decoded(ref=ref, error="damaged"),
        Decoded(ref=ref, frame=large),
        Decoded(ref=ref, frame=field),
    ]
    failed, cut, whole = sized.analyze(batch)
    assert failed.error == "damaged"
    assert boxes_of(cut) == truth(large.pixels)
    assert boxes_of(whole) == truth(field.pixels)
    assert cut.path == "p"


def round_view(pixels: np.ndarray, *, frame_hw: tuple[int, int], surround: int) -> np.ndarray:
    """What an eyepiece shows of a square picture, in the middle of a larger frame."""
    side = pixels.shape[0]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    view = np.where((y**2 + x**2 < (side / 2) ** 2)[..., None], pixels, np.uint8(surround))
    frame = np.full((*frame_hw, 3), surround, np.uint8)
    top, left = (frame_hw[0] - side) // 2, (frame_hw[1] - side) // 2
    frame[top : top + side, left : left + side] = view
    return frame


@pytest.mark.parametrize("surround", [0, 12, 255])
@pytest.mark.parametrize("frame_hw", [(1000, 1300), (1300, 1000), (1900, 2600)])
def test_a_round_view_has_the_cells_in_it_and_those_at_its_rim_are_marked(surround, frame_hw):
    square = mosaic(2, 2)[:900, :900].copy()
    frame = round_view(square, frame_hw=frame_hw, surround=surround)
    result = analysed(frame, DiscLane())
    assert (result.width, result.height) == frame_hw[::-1]
    assert result.regions is not None
    top, left = (frame_hw[0] - 900) // 2, (frame_hw[1] - 900) // 2
    shift = np.array((left, top, left, top))
    boxes = np.array(sorted(truth(square)))
    far = np.hypot(*np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - 450).T)
    whole = {tuple(b) for b in (boxes[far < 450 - 30] + shift).tolist()}
    found = np.rint(result.regions.boxes).astype(int)
    border = (result.regions.flags & RegionFlag.BORDER) > 0
    clear = {tuple(box) for box in found[~border].tolist()}
    assert whole <= clear | {tuple(box) for box in found.tolist()}
    assert clear <= {tuple(b) for b in (boxes + shift).tolist()}, (
        "a cell that the rim cuts is not clear of it"
    )
    assert len(clear) > 0.9 * len(whole)
    assert result.um_per_px == pytest.approx(UM, rel=0.01)


def test_a_frame_without_a_surround_is_left_as_it_is():
    pixels = mosaic(1, 1)
    pixels[:40, :200] = (40, 30, 90)  # a dark nucleus at the edge
    assert lit_part(pixels) is None
    assert lit_part(np.zeros((48, 64, 3), np.uint8)) is None
    assert lit_part(np.full((48, 64, 3), 255, np.uint8)) is None
