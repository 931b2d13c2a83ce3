"""measure_field beside OpenCV: an area resize and the Otsu threshold and components of it, a part of what it does."""

from __future__ import annotations

import cv2
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from rbc_engine.lanes.measure import measure_field
from rbc_engine.types.arrays import UInt8

_SMALL_WH = (480, 360)


@pytest.mark.benchmark(group="measure_field")
class TestMeasureField:
    def test_engine(self, benchmark: BenchmarkFixture, frame: UInt8) -> None:
        benchmark(measure_field, frame)

    def test_opencv(self, benchmark: BenchmarkFixture, frame: UInt8) -> None:
        def run() -> int:
            small = cv2.resize(frame, _SMALL_WH, interpolation=cv2.INTER_AREA)
            green = cv2.blur(small, (3, 3))[..., 1]
            _, mask = cv2.threshold(green, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
            outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            count, *_ = cv2.connectedComponentsWithStats(mask)
            return count + len(outlines)

        benchmark(run)
