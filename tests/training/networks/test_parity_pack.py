"""The shipped pack's weights in torchvision's own FasterRCNN, against the engine, on whole fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import FasterRCNN

from rbc_engine import Engine
from rbc_engine.devices.cpu import ops
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.networks.restore import restore_classifier, restore_detector
from rbc_engine.types.arrays import Float32, UInt8

from ...kernels.reference import exposure_gain
from ..conftest import margins_as_the_engine_has

_SCORE = 1e-3


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.open("chula12", device="cpu", precision="fp32") as opened:
        yield opened


@pytest.fixture(scope="module")
def detector(engine: Engine) -> FasterRCNN:
    return restore_detector(engine.pack)


@dataclass(frozen=True)
class _Gaps:
    """How far the engine's sure regions are from torchvision's: the edge that moved most in px, and the score."""

    box_px: Float32
    score: Float32
    order: Float32
    """By how much a score rises where torchvision's order has it fall."""


def _gaps(engine: Engine, detector: FasterRCNN, image: UInt8, seen: Float32) -> _Gaps:
    """`image` through the engine against `seen` through torchvision, boxes in pixels of `image`.

    seen: float32 [H, W, 3], grey levels.
    """
    level = engine.pack.manifest.detector.background_level
    regions = engine.analyze(image).regions
    assert regions is not None
    with (
        margins_as_the_engine_has(detector, image, background_level=level),
        torch.inference_mode(),
    ):
        expected = detector([torch.from_numpy(seen).permute(2, 0, 1) / 255])[0]
    factors = np.divide(image.shape[1::-1], seen.shape[1::-1])
    boxes, scores = expected["boxes"].numpy() * np.tile(factors, 2), expected["scores"].numpy()
    # A region at the very threshold may be on either side of it.
    sure = scores > engine.pack.manifest.detector.score_threshold + _SCORE
    assert sure.sum() >= 10
    assert abs(len(scores) - len(regions)) <= (~sure).sum() + 2
    distance = np.abs(regions.boxes[:, None] - boxes[None]).max(axis=2)
    nearest = distance.argmin(axis=0)[sure]
    return _Gaps(
        box_px=distance.min(axis=0)[sure],
        score=np.abs(regions.scores[nearest] - scores[sure]),
        order=np.diff(regions.scores[nearest]),
    )


def _check_canvas(engine: Engine, detector: FasterRCNN, image: UInt8) -> None:
    """torchvision sees the very canvas that the engine's networks see: everything after it must be equal."""
    settings = engine.pack.manifest.detector
    resized_hw = fit_canvas(image.shape[:2], pixel_um=None, settings=settings).resized_hw
    canvas = ops.resize_letterbox(
        [image],
        np.array([resized_hw], np.int32),
        canvas_hw=resized_hw,
        background_level=settings.background_level,
    )[0]
    gaps = _gaps(engine, detector, image, canvas.astype(np.float32))
    assert gaps.box_px.max() <= 0.01
    assert gaps.score.max() <= 1e-4
    assert gaps.order.max() <= 1e-4


def _check_frames(engine: Engine, detector: FasterRCNN, images: Iterable[UInt8]) -> None:
    """torchvision resizes in float32, the engine rounds the canvas to uint8: half a level, which now and then
    lets another of two near-equal proposals win."""
    level = engine.pack.manifest.detector.background_level
    gaps = [
        _gaps(
            engine,
            detector,
            image,
            np.minimum(image * np.float32(exposure_gain(image, level)), 255),
        )
        for image in images
    ]
    box_px = np.concatenate([gap.box_px for gap in gaps])
    score = np.concatenate([gap.score for gap in gaps])
    assert np.median(score) <= 3e-4
    assert (box_px <= 0.5).mean() >= 0.97
    assert (score <= 0.01).mean() >= 0.97


def _samples(repository: Path) -> list[Path]:
    return sorted((repository / "samples").rglob("*.jpg"))


def test_detector_equals_torchvision_on_samples(
    engine: Engine, detector: FasterRCNN, repository: Path
) -> None:
    images = [read_image(path, name=path.name) for path in _samples(repository)]
    for image in images:
        _check_canvas(engine, detector, image)
    _check_frames(engine, detector, images)


@pytest.mark.real
def test_detector_equals_torchvision_on_real_smears(
    engine: Engine, detector: FasterRCNN, real_data: Path
) -> None:
    paths = sorted((real_data / "slides").rglob("*.JPG"))
    paths += sorted((real_data / "chula12" / "images").glob("*.jpg"))[::60]
    assert len(paths) >= 15
    images = [read_image(path, name=path.name) for path in paths]
    for image in images:
        _check_canvas(engine, detector, image)
    _check_frames(engine, detector, images)


def test_classifier_equals_torch(engine: Engine) -> None:
    pack = engine.pack
    model = restore_classifier(pack)
    side = pack.manifest.classifier.patch_px
    patches = np.random.default_rng(0).normal(0, 1, (16, 3, side, side)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(patches))[1].sigmoid().numpy()
    network = engine.choice.device.load(
        pack.read("classifier.onnx"), outputs=["probabilities"], shapes={"patches": patches.shape}
    )
    got = network({"patches": patches})["probabilities"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
