"""The engine's whole detection path against torchvision's FasterRCNN.forward with the same
weights.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.stages.detect import Detect, Detections
from rbc_engine.meter import Meter
from rbc_engine.training.networks.export import export_detector
from rbc_engine.training.networks.models import build_detector
from rbc_engine.training.networks.restore import restore_detector
from rbc_engine.types.arrays import Float32, UInt8
from rbc_engine.types.frames import Frame

from ..conftest import (
    SETTINGS,
    ExportedDetector,
    draw_discs,
    margins_as_the_engine_has,
    with_float16_weights,
)


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
        # torchvision resizes in float, the engine to uint8: of two proposals nearly as likely NMS
        # may keep the other one, and the box of at most one cell is another.
        apart = np.abs(got.boxes[partner][sure] - boxes[sure]).max(axis=1)
        near = apart <= 0.1
        assert near.sum() >= sure.sum() - 1
        assert apart.max() < 2
        np.testing.assert_allclose(
            got.scores[partner][sure][near], scores[sure][near], rtol=0, atol=5e-3
        )


@pytest.fixture(scope="module")
def of_kinds(detector: ExportedDetector) -> ExportedDetector:
    """The detector with its region class split into three kinds, that differ at random."""
    torch.manual_seed(1)
    model = copy.deepcopy(detector.reference)
    old, new = model.roi_heads.box_predictor, FastRCNNPredictor(64, 4)
    split = [0, 1, 1, 1]
    with torch.no_grad():
        weight, bias = old.cls_score.weight[split], old.cls_score.bias[split]
        new.cls_score.weight.copy_(weight + 0.3 * weight.std() * torch.randn(4, 64))
        new.cls_score.bias.copy_(bias)
        for name in ("weight", "bias"):
            values = getattr(old.bbox_pred, name).unflatten(0, (2, 4))[split].flatten(0, 1)
            getattr(new.bbox_pred, name).copy_(
                values + 0.1 * values.std() * torch.randn_like(values)
            )
    model.roi_heads.box_predictor = new
    return ExportedDetector(SETTINGS, with_float16_weights(model), *export_detector(model))


def over_all_kinds(class_logits, box_deltas, proposals, sizes):
    """RoIHeads.postprocess_detections for one image as the engine has it: the likeliest kind, and
    one suppression.
    """
    scores, kinds = class_logits.softmax(1)[:, 1:].max(1)
    decoded = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode(box_deltas, proposals)
    boxes = clip_boxes_to_image(decoded[torch.arange(len(kinds)), 1 + kinds], sizes[0])
    sound = (scores > SETTINGS.score_threshold) & ((boxes[:, 2:] - boxes[:, :2]) >= 0.01).all(1)
    boxes, scores, kinds = boxes[sound], scores[sound], kinds[sound]
    kept = nms(boxes, scores, SETTINGS.nms_iou)[: SETTINGS.max_regions]
    return [boxes[kept]], [scores[kept]], [1 + kinds[kept]]


def test_finds_kinds(of_kinds: ExportedDetector, device: HostDevice):
    images = draw(96, 128, count=3)
    seen = set()
    heads = of_kinds.reference.roi_heads
    for image, got in zip(images, detect(device, of_kinds, images, batch=2), strict=True):
        with (
            patch.object(heads, "postprocess_detections", over_all_kinds),
            margins_as_the_engine_has(of_kinds.reference, image),
            torch.no_grad(),
        ):
            found = of_kinds.reference([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
        assert len(got.scores) == len(found["scores"]) >= 5
        boxes = found["boxes"].numpy()
        order = np.abs(got.boxes[:, None] - boxes[None]).max(2).argmin(1)
        assert sorted(order) == list(range(len(boxes)))
        np.testing.assert_allclose(got.boxes, boxes[order], rtol=0, atol=1e-3)
        np.testing.assert_allclose(got.scores, found["scores"].numpy()[order], rtol=0, atol=1e-5)
        assert got.classes.dtype == np.uint8
        # Kinds are counted from 0, without the background.
        np.testing.assert_array_equal(got.classes, found["labels"].numpy()[order] - 1)
        seen |= set(got.classes.tolist())
    assert seen == {0, 1, 2}


def test_restores_a_detector_of_kinds(of_kinds: ExportedDetector):
    graphs = {"detector.onnx": of_kinds.network_a, "box_head.onnx": of_kinds.network_b}
    pack = SimpleNamespace(
        manifest=SimpleNamespace(detector=SETTINGS), read=graphs.__getitem__, folder="a folder"
    )
    restored = restore_detector(pack).state_dict()
    expected = of_kinds.reference.state_dict()
    assert restored.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(restored[name], values, rtol=0, atol=0)


@pytest.mark.parametrize("classes", [1, 17])
def test_says_how_many_classes_there_may_be(classes: int):
    with pytest.raises(ValueError, match=rf"classes must lie in 2..16 \(got {classes}\)"):
        build_detector(settings=SETTINGS, classes=classes)
