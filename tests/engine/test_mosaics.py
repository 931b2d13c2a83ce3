"""The shipped pack on mosaics: the regions of a mosaic are those of its parts, however it comes."""

from __future__ import annotations

import numpy as np
import pytest

from rbc_engine.engine import Engine
from rbc_engine.sources.synthetic.field import render_field

UM = 0.192


@pytest.fixture(scope="module")
def engine():
    with Engine.open("chula12", device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def part() -> np.ndarray:
    """A field whose cells keep clear of its edges, so that a mosaic of it cuts none."""
    inner = render_field(
        seed=5, width=560, height=400, cells=45, cell_px=7.6 / UM, touching=0.2
    ).pixels
    background = np.quantile(inner.reshape(-1, 3), 0.8, axis=0).astype(np.uint8)
    whole = np.empty((480, 640, 3), np.uint8)
    whole[:] = background
    whole[40:440, 40:600] = inner
    return whole


@pytest.mark.parametrize("shape", [(1, 3), (3, 2)])
def test_a_mosaic_has_the_regions_of_its_parts(engine, part, shape):
    of_part = engine.analyze(part)
    assert of_part.um_per_px == pytest.approx(UM, rel=0.01)
    expected = shape[0] * shape[1] * len(of_part.regions)
    assert expected > 100
    pixels = np.tile(part, (*shape, 1))
    whole = engine.analyze(pixels)
    assert not whole.saturated
    assert whole.um_per_px == pytest.approx(UM, rel=0.01)
    assert len(whole.regions) == pytest.approx(expected, rel=0.02)
    with engine.session(warm_up_hw=(480, 640)) as session:
        session.submit(pixels, field="a")
        session.finish()
        (ended,) = session.results()
    np.testing.assert_array_equal(ended.result.regions.boxes, whole.regions.boxes)
    given = engine.analyze(pixels, pixel_um=UM)
    assert given.um_per_px_from == "given"
    assert len(given.regions) == pytest.approx(expected, rel=0.02)
