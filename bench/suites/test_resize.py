"""Compare resize_letterbox and crop_resize with OpenCV, torch and PIL, and with a copy of the same
bytes.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from rbc_engine.devices.cpu import ops
from rbc_engine.types.arrays import Float32, UInt8

_CANVAS_HW = (320, 427)
_PATCH_PX = 80
_WINDOW_PX = 108.0
_REGIONS = 64
_MEAN = _STD = (148.0, 150.0, 151.0)


@pytest.fixture(scope="module")
def windows(frame: UInt8) -> Float32:
    rng = np.random.default_rng(0)
    corners = rng.random((_REGIONS, 2)) * (np.array(frame.shape[1::-1]) - _WINDOW_PX)
    return np.concatenate([corners, corners + _WINDOW_PX], axis=1).astype(np.float32)


@pytest.mark.benchmark(group="resize_letterbox")
class TestResizeLetterbox:
    def test_engine(self, benchmark: BenchmarkFixture, frame: UInt8) -> None:
        resized = np.array([_CANVAS_HW], np.int32)
        benchmark(ops.resize_letterbox, [frame], resized, canvas_hw=(320, 448))

    def test_opencv(self, benchmark: BenchmarkFixture, frame: UInt8) -> None:
        benchmark(cv2.resize, frame, _CANVAS_HW[::-1], interpolation=cv2.INTER_LINEAR)

    def test_torchvision(self, benchmark: BenchmarkFixture, frame: UInt8) -> None:
        image = torch.from_numpy(frame).permute(2, 0, 1)
        benchmark(tv.resize, image, list(_CANVAS_HW), antialias=False)

    def test_memory_bandwidth(self, benchmark: BenchmarkFixture, frame: UInt8) -> None:
        """Copy as many bytes: the rows that a bilinear resize reads, and the canvas."""
        source = np.ascontiguousarray(frame[: (2 * 320 * 1280 + 320 * 448) // 1280 // 2])
        target = np.empty_like(source)
        benchmark(np.copyto, target, source)


@pytest.mark.benchmark(group="crop_resize")
class TestCropResize:
    def test_engine(self, benchmark: BenchmarkFixture, frame: UInt8, windows: Float32) -> None:
        index = np.zeros(len(windows), np.int32)
        benchmark(ops.crop_resize, [frame], windows, index, size_px=_PATCH_PX, mean=_MEAN, std=_STD)

    def test_pil(self, benchmark: BenchmarkFixture, frame: UInt8, windows: Float32) -> None:
        """Compute the same: the same antialiased filter on the same windows, rounded to uint8, then
        normalised.
        """
        image = Image.fromarray(frame)
        mean, std = np.array(_MEAN, np.float32), np.array(_STD, np.float32)

        def run() -> Float32:
            patches = np.stack(
                [
                    np.asarray(
                        image.resize(
                            (_PATCH_PX, _PATCH_PX), Image.Resampling.BILINEAR, box=tuple(w)
                        )
                    )
                    for w in windows.tolist()
                ]
            )
            return np.ascontiguousarray(((patches - mean) / std).transpose(0, 3, 1, 2))

        benchmark(run)

    def test_opencv(self, benchmark: BenchmarkFixture, frame: UInt8, windows: Float32) -> None:
        """Compute less: whole pixels, and plain bilinear, without the filter."""
        boxes = windows.astype(int)
        mean, std = np.array(_MEAN, np.float32), np.array(_STD, np.float32)

        def run() -> Float32:
            out = np.empty((len(boxes), 3, _PATCH_PX, _PATCH_PX), np.float32)
            for patch, (x0, y0, x1, y1) in zip(out, boxes, strict=True):
                small = cv2.resize(frame[y0:y1, x0:x1], (_PATCH_PX, _PATCH_PX))
                patch[:] = ((small - mean) / std).transpose(2, 0, 1)
            return out

        benchmark(run)

    def test_torchvision(self, benchmark: BenchmarkFixture, frame: UInt8, windows: Float32) -> None:
        """Compute on whole pixels, with the filter."""
        image = torch.from_numpy(frame).permute(2, 0, 1)
        boxes = windows.astype(int)
        size = [_PATCH_PX, _PATCH_PX]

        def run() -> torch.Tensor:
            patches = [
                tv.resized_crop(image, y0, x0, y1 - y0, x1 - x0, size, antialias=True)
                for x0, y0, x1, y1 in boxes.tolist()
            ]
            normal: torch.Tensor = tv.normalize(
                torch.stack(patches).float(), list(_MEAN), list(_STD)
            )
            return normal

        benchmark(run)

    def test_memory_bandwidth(self, benchmark: BenchmarkFixture) -> None:
        """Copy as many bytes: the windows, and the patches."""
        count = _REGIONS * int(3 * _WINDOW_PX**2 + 12 * _PATCH_PX**2) // 2
        source, target = np.zeros(count, np.uint8), np.empty(count, np.uint8)
        benchmark(np.copyto, target, source)
