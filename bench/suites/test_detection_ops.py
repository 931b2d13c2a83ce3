"""Compare generate_proposals, roi_align and postprocess_detections with torchvision's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, nms

from rbc_engine.devices.anchors import base_anchors
from rbc_engine.devices.cpu import ops
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks.restore import restore_detector
from rbc_engine.types.arrays import Float32, Int32

_CANVAS_HW = (320, 448)
_IMAGE_HW = (320, 427)
_FRAME_HW = (960, 1280)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Case:
    """Hold what the networks hand to the ops for one rendered field."""

    settings: DetectorSettings
    objectness: list[Float32]
    deltas: list[Float32]
    features: list[Float32]
    anchors: list[Float32]
    proposals: Float32
    counts: Int32
    class_logits: Float32
    box_deltas: Float32


@pytest.fixture(scope="module")
def detector(pack: Pack) -> Any:
    return restore_detector(pack)


@pytest.fixture(scope="module")
def case(pack: Pack, detector: Any, frame: np.ndarray) -> _Case:
    settings = pack.manifest.detector
    canvas = ops.resize_letterbox(
        [frame],
        np.array([_IMAGE_HW], np.int32),
        canvas_hw=_CANVAS_HW,
    )
    image = (
        torch.from_numpy(canvas).permute(0, 3, 1, 2).float() / 255
        - torch.tensor(settings.mean_rgb).view(1, 3, 1, 1) / 255
    ) / 0.25
    features = list(detector.backbone(image).values())
    objectness, deltas = detector.rpn.head(features)
    anchors = [
        base_anchors(sizes, settings.anchor_aspect_ratios) for sizes in settings.anchor_sizes_px
    ]
    arrays = [
        [t.contiguous().numpy() for t in tensors] for tensors in (objectness, deltas, features)
    ]
    proposals, counts = _engine_proposals(settings, arrays[0], arrays[1], anchors)
    pooled = _engine_pooled(settings, arrays[2], proposals, counts)
    logits, box_deltas = detector.roi_heads.box_predictor(
        detector.roi_heads.box_head(torch.from_numpy(pooled))
    )
    return _Case(
        settings=settings,
        objectness=arrays[0],
        deltas=arrays[1],
        features=arrays[2],
        anchors=anchors,
        proposals=proposals,
        counts=counts,
        class_logits=logits.numpy(),
        box_deltas=box_deltas.numpy(),
    )


def _engine_proposals(
    settings: DetectorSettings,
    objectness: list[Float32],
    deltas: list[Float32],
    anchors: list[Float32],
) -> tuple[Float32, Int32]:
    return ops.generate_proposals(
        objectness,
        deltas,
        base_anchors=anchors,
        strides_px=settings.strides_px,
        image_hw=np.array([_IMAGE_HW], np.int32),
        per_level=settings.proposals_per_level,
        keep=settings.proposals,
        nms_iou=settings.proposal_nms_iou,
    )


def _engine_pooled(
    settings: DetectorSettings, features: list[Float32], proposals: Float32, counts: Int32
) -> Float32:
    return ops.roi_align(
        features[: settings.roi_levels],
        proposals,
        counts,
        strides_px=settings.strides_px[: settings.roi_levels],
        output_size=settings.roi_size,
        sampling_ratio=settings.roi_sampling_ratio,
        canonical_px=settings.roi_canonical_px,
        canonical_level=settings.roi_canonical_level,
    )


@pytest.mark.benchmark(group="generate_proposals")
class TestGenerateProposals:
    def test_engine(self, benchmark: BenchmarkFixture, case: _Case) -> None:
        benchmark(_engine_proposals, case.settings, case.objectness, case.deltas, case.anchors)

    def test_torchvision(self, benchmark: BenchmarkFixture, case: _Case, detector: Any) -> None:
        """Run the region proposal network behind its head, given the head's outputs."""
        rpn = detector.rpn
        objectness = [torch.from_numpy(array) for array in case.objectness]
        deltas = [torch.from_numpy(array) for array in case.deltas]
        features = [torch.from_numpy(array) for array in case.features]
        images = ImageList(torch.zeros(1, 3, *_CANVAS_HW), [_IMAGE_HW])
        rpn.head.forward = lambda _: (objectness, deltas)
        named = {str(level): tensor for level, tensor in enumerate(features)}
        try:
            benchmark(rpn, images, named)
        finally:
            del rpn.head.forward


@pytest.mark.benchmark(group="nms")
class TestNms:
    """Measure suppression only, as far as possible: scored boxes of one image through
    postprocess_detections.
    """

    def test_engine(self, benchmark: BenchmarkFixture, case: _Case) -> None:
        slots = case.proposals.shape[1]
        logits = np.zeros((slots, 2), np.float32)
        logits[:, 1] = np.linspace(4, -2, slots)
        benchmark(_engine_regions, case, logits, np.zeros((slots, 8), np.float32), threshold=0.0)

    def test_torchvision(self, benchmark: BenchmarkFixture, case: _Case) -> None:
        boxes = torch.from_numpy(case.proposals[0, : case.counts[0]])
        benchmark(nms, boxes, torch.linspace(1, 0, len(boxes)), case.settings.nms_iou)


@pytest.mark.benchmark(group="roi_align")
class TestRoiAlign:
    def test_engine(self, benchmark: BenchmarkFixture, case: _Case) -> None:
        benchmark(_engine_pooled, case.settings, case.features, case.proposals, case.counts)

    def test_torchvision(self, benchmark: BenchmarkFixture, case: _Case) -> None:
        settings = case.settings
        pool = MultiScaleRoIAlign(
            [str(level) for level in range(settings.roi_levels)],
            settings.roi_size,
            settings.roi_sampling_ratio,
            canonical_scale=settings.roi_canonical_px,
            canonical_level=settings.roi_canonical_level,
        )
        features = {
            str(level): torch.from_numpy(array) for level, array in enumerate(case.features)
        }
        boxes = [torch.from_numpy(case.proposals[0, : case.counts[0]])]
        benchmark(pool, features, boxes, [_CANVAS_HW])

    def test_memory_bandwidth(self, benchmark: BenchmarkFixture, case: _Case) -> None:
        """Copy as many bytes: the features, and what is pooled."""
        read = sum(array.nbytes for array in case.features[: case.settings.roi_levels])
        written = 4 * case.settings.proposals * case.settings.feature_channels * 49
        source = np.zeros((read + written) // 2, np.uint8)
        target = np.empty_like(source)
        benchmark(np.copyto, target, source)


def _engine_regions(
    case: _Case, logits: Float32, deltas: Float32, *, threshold: float
) -> tuple[Any, ...]:
    return ops.postprocess_detections(
        logits,
        deltas,
        case.proposals,
        case.counts,
        image_hw=np.array([_IMAGE_HW], np.int32),
        frame_hw=np.array([_FRAME_HW], np.int32),
        score_threshold=threshold,
        nms_iou=case.settings.nms_iou,
        max_regions=case.settings.max_regions,
    )


@pytest.mark.benchmark(group="postprocess_detections")
class TestPostprocessDetections:
    def test_engine(self, benchmark: BenchmarkFixture, case: _Case) -> None:
        benchmark(
            _engine_regions,
            case,
            case.class_logits,
            case.box_deltas,
            threshold=case.settings.score_threshold,
        )

    def test_engine_with_four_classes(self, benchmark: BenchmarkFixture, case: _Case) -> None:
        """Use as many regions as with two classes, in equal parts of three kinds."""
        slots = len(case.class_logits)
        logits = np.full((slots, 4), -9, np.float32)
        logits[:, 0] = case.class_logits[:, 0]
        logits[np.arange(slots), 1 + np.arange(slots) % 3] = case.class_logits[:, 1]
        deltas = np.tile(case.box_deltas[:, 4:], 4)
        benchmark(_engine_regions, case, logits, deltas, threshold=case.settings.score_threshold)

    def test_torchvision(self, benchmark: BenchmarkFixture, case: _Case, detector: Any) -> None:
        heads = detector.roi_heads
        logits, deltas = torch.from_numpy(case.class_logits), torch.from_numpy(case.box_deltas)
        proposals = [torch.from_numpy(case.proposals[0])]
        benchmark(heads.postprocess_detections, logits, deltas, proposals, [_IMAGE_HW])
