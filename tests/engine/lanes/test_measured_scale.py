"""Scales set by the cells on a picture, against the truth of rendered fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.measure import measure_field
from rbc_engine.lanes.stages.detect import Detections
from rbc_engine.lanes.stages.measured_scale import MeasuredScale
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.synthetic.field import SyntheticField, render_field
from rbc_engine.types.frames import CanvasFit, Frame

CELL_CANVAS_PX = 26.0
ASSUMED_PX = CELL_CANVAS_PX * 480 / 320


@pytest.fixture(scope="module")
def settings():
    found = Pack.open(find_pack("chula12")).manifest.detector
    return found.model_copy(
        update={
            "kinds": ("red",),
            "unit": "cell",
            "cell_canvas_px": CELL_CANVAS_PX,
            "short_side_px": 320,
            "um_per_canvas_px": 0.288,
        }
    )


def rendered(cell_px: float, cells: int) -> SyntheticField:
    return render_field(seed=5, width=640, height=480, cells=cells, cell_px=cell_px, touching=0.1)


class TrueCells:
    """Detect what was rendered, with sides that are `factor` times too large."""

    def __init__(self, field: SyntheticField, factor: float = 1.0) -> None:
        self.boxes = field.cell_boxes
        self.factor = factor
        self.scales: list[float] = []

    def __call__(self, frames: Sequence[Frame], fits: Sequence[CanvasFit]) -> list[Detections]:
        self.scales += [fit.scale for fit in fits]
        middle = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        half = (self.boxes[:, 2:] - self.boxes[:, :2]) / 2 * self.factor
        boxes = np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
        return [
            Detections(
                boxes=boxes,
                scores=np.full(len(boxes), 0.9, np.float32),
                classes=np.zeros(len(boxes), np.uint8),
                saturated=False,
            )
            for _ in frames
        ]


def sighting_of(settings, field: SyntheticField, detect, **of_frame):
    frame = Frame(pixels=field.pixels, **of_frame)
    fit = fit_canvas((480, 640), pixel_um=frame.pixel_um, settings=settings)
    measure = measure_field(frame.pixels)
    [sighting] = MeasuredScale(settings).detect([frame], [fit], [measure], detect)
    return fit, sighting


@pytest.mark.parametrize(("cell_px", "cells"), [(16.0, 150), (24.0, 90), (75.0, 14), (110.0, 8)])
def test_the_median_cell_gets_the_size_that_the_pack_knows(settings, cell_px, cells):
    field = rendered(cell_px, cells)
    detect = TrueCells(field)
    _, sighting = sighting_of(settings, field, detect)
    sides = np.sqrt((field.cell_boxes[:, 2:] - field.cell_boxes[:, :2]).prod(axis=1))
    assert sighting.cell_scale * np.median(sides) == pytest.approx(CELL_CANVAS_PX, rel=0.1)
    assert sighting.um_per_px == pytest.approx(0.288 * sighting.cell_scale)
    # The canvas is of a few shapes only, and near enough.
    steps = 4 * np.log2(sighting.fit.scale / (320 / 480))
    assert steps == pytest.approx(round(steps), abs=1e-6)
    assert sighting.fit.scale == pytest.approx(sighting.cell_scale, rel=0.3)


@pytest.mark.parametrize("cell_px", [0.9 * ASSUMED_PX, ASSUMED_PX, 1.15 * ASSUMED_PX])
def test_cells_about_as_large_as_assumed_change_nothing(settings, cell_px):
    field = rendered(cell_px, 30)
    detect = TrueCells(field)
    fit, sighting = sighting_of(settings, field, detect)
    assert detect.scales == [fit.scale]
    assert (sighting.fit, sighting.cell_scale, sighting.um_per_px) == (fit, fit.scale, None)


def test_a_known_scale_is_kept(settings):
    field = rendered(80.0, 12)
    detect = TrueCells(field)
    fit, sighting = sighting_of(settings, field, detect, pixel_um=0.192)
    assert detect.scales == [fit.scale]
    assert sighting.um_per_px is None


def test_detections_correct_the_measure_once(settings):
    field = rendered(75.0, 14)
    detect = TrueCells(field, factor=1.6)
    _, sighting = sighting_of(settings, field, detect)
    assert len(detect.scales) == 2
    assert detect.scales[1] < detect.scales[0] / 1.3
    assert sighting.fit.scale == detect.scales[1]


def test_an_empty_picture_stays_as_assumed(settings):
    blank = np.full((480, 640, 3), 205, np.uint8)
    fit = fit_canvas((480, 640), pixel_um=None, settings=settings)
    none = Detections(
        boxes=np.zeros((0, 4), np.float32),
        scores=np.zeros(0, np.float32),
        classes=np.zeros(0, np.uint8),
        saturated=False,
    )
    [sighting] = MeasuredScale(settings).detect(
        [Frame(pixels=blank)],
        [fit],
        [measure_field(blank)],
        lambda frames, fits: [none] * len(frames),
    )
    assert (sighting.fit, sighting.um_per_px) == (fit, None)


def test_a_pack_without_a_cell_size_is_refused(settings):
    with pytest.raises(ValueError, match="cell_canvas_px"):
        MeasuredScale(settings.model_copy(update={"cell_canvas_px": None}))
