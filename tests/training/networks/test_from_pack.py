"""A training that begins with a pack computes, at first, what the pack's networks compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from rbc_engine.errors import PackError
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.formats.chula12 import load_chula12
from rbc_engine.training.fit import classifier
from rbc_engine.training.fit.region_set import load_regions
from rbc_engine.training.networks.export import fold_batchnorm
from rbc_engine.training.networks.from_pack import (
    begin_classifier,
    begin_detector,
    unfold_batchnorm,
)
from rbc_engine.training.networks.models import Classifier, build_detector
from rbc_engine.training.recipes import CHULA12

from ..fake_chula import write_chula


def output(pack: Pack, network: str, name: str, feed: np.ndarray) -> np.ndarray:
    core = openvino.Core()
    model = core.read_model(pack.read(network), b"")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled([feed])[name]).astype(np.float32)


def test_a_classifier_goes_on_from_the_pack(pack: Pack):
    torch.manual_seed(0)
    side = pack.manifest.classifier.patch_px
    patches = torch.randn(20, 4, 3, side, side)
    model = Classifier(types=len(pack.types)).train()
    lines: list[str] = []
    begin_classifier(
        model, pack, same_types=True, run=lambda i: model(patches[i]), log=lines.append
    )
    with torch.inference_mode():
        _, logits = model.eval()(patches[0])
    expected = output(pack, "classifier.onnx", "probabilities", patches[0].half().numpy())
    np.testing.assert_allclose(logits.sigmoid().numpy(), expected, atol=2e-3)
    assert expected.std() > 0.01
    assert "trunk and head" in lines[0]


def test_with_other_types_the_heads_begin_anew(pack: Pack):
    patches = torch.randn(20, 2, 3, 32, 32)
    model = Classifier(types=3).train()
    before = model.head.first.weight.clone()
    lines: list[str] = []
    begin_classifier(
        model, pack, same_types=False, run=lambda i: model(patches[i]), log=lines.append
    )
    assert torch.equal(model.head.first.weight, before)
    assert "heads start with random weights" in lines[1]


def test_a_detector_goes_on_from_the_pack(pack: Pack):
    torch.manual_seed(0)
    model = build_detector(settings=pack.manifest.detector).train()
    target = {
        "boxes": torch.tensor([[10.0, 10, 40, 40]]),
        "labels": torch.ones(1, dtype=torch.int64),
    }
    begin_detector(
        model, pack, run=lambda _: model(list(torch.rand(2, 3, 128, 128)), [target] * 2), log=str
    )
    canvas = torch.randint(0, 256, (1, 128, 160, 3), dtype=torch.uint8)
    expected = output(pack, "detector.onnx", "features_0", canvas.numpy())
    transform = model.transform
    mean = torch.tensor(transform.image_mean)[:, None, None]
    std = torch.tensor(transform.image_std)[:, None, None]
    with torch.inference_mode():
        image = (canvas.permute(0, 3, 1, 2) / 255 - mean) / std
        features = model.eval().backbone(image)["0"]
    np.testing.assert_allclose(features.numpy(), expected, atol=0.02 * float(expected.std()) + 0.02)
    assert expected.std() > 0.1


def test_a_detector_with_another_trunk_takes_that_of_the_classifier(pack: Pack):
    model = build_detector(trunk="resnet50", settings=CHULA12.detector)
    lines: list[str] = []
    begin_detector(
        model.train(),
        pack,
        run=lambda _: model.backbone(torch.rand(2, 3, 64, 64)),
        log=lines.append,
    )
    assert "that of the classifier" in lines[0]
    with pytest.raises(PackError, match="another architecture"):
        begin_detector(
            build_detector(trunk="resnet101", settings=CHULA12.detector), pack, run=id, log=str
        )


@pytest.mark.slow
def test_heads_on_a_frozen_trunk_learn_from_the_features_of_the_pack(pack: Pack, tmp_path: Path):
    write_chula(tmp_path / "data", groups=1, fields_per_group=1)
    regions = load_regions(load_chula12(tmp_path / "data", threads=1).fields, short_side_px=320)
    training = classifier.ClassifierTraining(
        frozen_trunk=True, stages=((80, 8),), batch=4, bf16=True
    )
    settings = pack.manifest.classifier
    for _ in range(2):  # the second time features of an interrupted training lie there
        classifier.train_classifier(
            regions,
            settings=settings,
            training=training,
            checkpoint=tmp_path / "classifier.pt",
            start=pack,
            types=pack.types,
            log=str,
        )
        (tmp_path / "classifier.pt").unlink()
    chosen = np.arange(len(regions))
    patches = regions.patches(chosen, settings, threads=1).astype(np.float16)
    expected = output(pack, "classifier.onnx", "feature_map", patches).mean(axis=(2, 3))
    with np.load(tmp_path / "features.npz") as stored:
        np.testing.assert_allclose(stored["features"], expected, atol=0.02)
    assert expected.std() > 0.05


def test_folding_is_undone():
    torch.manual_seed(1)
    model = Classifier(types=2, trunk="resnet18")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    folded = fold_batchnorm(model)
    other = Classifier(types=2, trunk="resnet18").train()
    data = torch.randn(20, 8, 3, 48, 48)
    weights = folded.state_dict()
    unfold_batchnorm(other, weights, run=lambda i: other(data[i]))
    with torch.inference_mode():
        torch.testing.assert_close(
            other.eval()(data[0])[1], model.eval()(data[0])[1], rtol=1e-3, atol=1e-3
        )
    # The statistics are those of the data, so that training mode computes nearly the same.
    for norm in (other.trunk.bn1, other.trunk.layer4[1].bn2):
        assert norm.running_var.std() > 0
