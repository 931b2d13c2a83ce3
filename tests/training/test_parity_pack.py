"""The shipped pack's weights in torchvision's own FasterRCNN, against the engine, on whole fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torchvision.models.detection import FasterRCNN

from rbc_engine import Engine
from rbc_engine.pack import Pack
from rbc_engine.sources.decode import read_image
from rbc_engine.training.export import fold_batchnorm
from rbc_engine.training.models import Classifier, build_detector
from rbc_engine.types import UInt8

# Where the weights of the two graphs live in torchvision's module.
_HOMES = {
    "detector.onnx": {"backbone.": "backbone.", "head.": "rpn.head."},
    "box_head.onnx": {"head.": "roi_heads.box_head.", "predictor.": "roi_heads.box_predictor."},
    "classifier.onnx": {"model.": ""},
}

_SCORE = 1e-3


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.open("chula12", device="cpu", precision="fp32") as opened:
        yield opened


@pytest.fixture(scope="module")
def detector(engine: Engine) -> FasterRCNN:
    model = fold_batchnorm(build_detector(settings=engine.pack.manifest.detector))
    _load(model, engine.pack, "detector.onnx", "box_head.onnx")
    assert isinstance(model, FasterRCNN)
    return model


def _load(model: nn.Module, pack: Pack, *names: str) -> None:
    """Takes every weight from the pack; a missing or left-over one fails."""
    state = {}
    for name in names:
        for tensor in onnx.load_from_string(pack.read(name)).graph.initializer:
            for prefix, home in _HOMES[name].items():
                if tensor.name.startswith(prefix):
                    values = torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
                    state[home + tensor.name.removeprefix(prefix)] = values
    model.load_state_dict(state, strict=True)
    model.eval()


def _check(engine: Engine, detector: FasterRCNN, image: UInt8) -> None:
    regions = engine.analyze(image).regions
    assert regions is not None
    with torch.inference_mode():
        expected = detector([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    boxes, scores = expected["boxes"].numpy(), expected["scores"].numpy()
    threshold = engine.pack.manifest.detector.score_threshold
    # A region at the very threshold may be on either side of it.
    sure, sure_here = scores > threshold + 1e-3, regions.scores > threshold + 1e-3
    assert sure.sum() >= 10
    distance = np.abs(regions.boxes[:, None] - boxes[None]).max(axis=2)
    nearest = distance.argmin(axis=0)
    assert (distance.min(axis=0)[sure] <= 0.5).all()
    assert (distance.min(axis=1)[sure_here] <= 0.5).all()
    np.testing.assert_allclose(regions.scores[nearest][sure], scores[sure], rtol=0, atol=_SCORE)
    # The same order, but for scores too near to each other to tell.
    assert (np.diff(regions.scores[nearest][sure]) <= 2 * _SCORE).all()


def _samples(repository: Path) -> list[Path]:
    return sorted((repository / "samples").rglob("*.jpg"))


def test_detector_equals_torchvision_on_samples(
    engine: Engine, detector: FasterRCNN, repository: Path
) -> None:
    for path in _samples(repository):
        _check(engine, detector, read_image(path, name=path.name))


@pytest.mark.real
def test_detector_equals_torchvision_on_real_smears(
    engine: Engine, detector: FasterRCNN, real_data: Path
) -> None:
    images = sorted((real_data / "slides").rglob("*.JPG"))
    images += sorted((real_data / "chula12" / "images").glob("*.jpg"))[::60]
    assert len(images) >= 15
    for path in images:
        _check(engine, detector, read_image(path, name=path.name))


def test_classifier_equals_torch(engine: Engine) -> None:
    pack = engine.pack
    model = fold_batchnorm(Classifier(types=len(pack.types)))
    _load(model, pack, "classifier.onnx")
    side = pack.manifest.classifier.patch_px
    patches = np.random.default_rng(0).normal(0, 1, (16, 3, side, side)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(patches))[1].sigmoid().numpy()
    network = engine.choice.device.load(
        pack.read("classifier.onnx"), outputs=["probabilities"], shapes={"patches": patches.shape}
    )
    got = network({"patches": patches})["probabilities"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
