"""The engine's whole detection path against torchvision's FasterRCNN.forward with the same weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.stages.detect import Detect, Detections
from rbc_engine.meter import Meter
from rbc_engine.types.arrays import Float32, UInt8
from rbc_engine.types.frames import Frame

from ..conftest import ExportedDetector, draw_discs, margins_as_the_engine_has


@pytest.fixture(scope="module")
def device():
    with HostDevice(precision="fp32", lanes=1, threads=1) as device:
        yield device


def detect(
    device: HostDevice, detector: ExportedDetector, images: list[UInt8], *, batch: int
) -> list[Detections]:
    graphs = {"detector.onnx": detector.network_a, "box_head.onnx": detector.network_b}
    pack = SimpleNamespace(
        manifest=SimpleNamespace(detector=detector.settings), read=graphs.__getitem__
    )
    stage = Detect(device, pack, batch=batch, threads=1, meter=Meter())
    frames = [Frame(pixels=image) for image in images]
    fits = [
        fit_canvas(image.shape[:2], pixel_um=None, settings=detector.settings) for image in images
    ]
    return stage(frames, fits)


def reference(detector: ExportedDetector, image: UInt8) -> tuple[Float32, Float32]:
    with margins_as_the_engine_has(detector.reference, image), torch.no_grad():
        found = detector.reference([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    return found["boxes"].numpy(), found["scores"].numpy()


def draw(height: int, width: int, *, count: int, zoom: float = 1.0) -> list[UInt8]:
    rng = np.random.default_rng(height * width)
    discs = max(3, int(height * width / zoom**2 / 2000))
    return [
        draw_discs(rng, height=height, width=width, discs=discs, zoom=zoom)[0] for _ in range(count)
    ]


# Frames with whole cells of the coarsest stride, and frames whose canvas is padded at the right.
@pytest.mark.parametrize(("height", "width"), [(96, 128), (96, 141)])
def test_equals_torchvision_without_resizing(
    detector: ExportedDetector, device: HostDevice, height: int, width: int
):
    images = draw(height, width, count=3)
    for image, got in zip(images, detect(device, detector, images, batch=2), strict=True):
        boxes, scores = reference(detector, image)
        assert len(scores) >= 5
        assert len(got.scores) == len(scores)
        order = np.abs(got.boxes[:, None] - boxes[None]).max(2).argmin(1)
        assert sorted(order) == list(range(len(scores)))
        np.testing.assert_allclose(got.boxes, boxes[order], rtol=0, atol=1e-3)
        np.testing.assert_allclose(got.scores, scores[order], rtol=0, atol=1e-5)
        assert (np.diff(scores[order]) <= 1e-5).all(), "surest first, but for equal scores"


# The engine's canvas is uint8: it rounds the resized frame, which torchvision keeps in float32.
@pytest.mark.parametrize(("height", "width"), [(192, 256), (150, 211), (64, 80)])
def test_is_close_to_torchvision_when_resizing(
    detector: ExportedDetector, device: HostDevice, height: int, width: int
):
    images = draw(height, width, count=3, zoom=height / 96)
    for image, got in zip(images, detect(device, detector, images, batch=2), strict=True):
        boxes, scores = reference(detector, image)
        sure = scores > detector.settings.score_threshold + 0.01
        assert sure.sum() >= 4
        overlap = box_iou(torch.from_numpy(boxes), torch.from_numpy(got.boxes)).numpy()
        partner = overlap.argmax(1)
        assert len(set(partner[sure])) == sure.sum()
        np.testing.assert_allclose(got.boxes[partner][sure], boxes[sure], rtol=0, atol=0.1)
        np.testing.assert_allclose(got.scores[partner][sure], scores[sure], rtol=0, atol=5e-3)
