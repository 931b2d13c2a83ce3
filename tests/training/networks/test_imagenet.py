"""ImageNet weights under another normalisation, and what is said where they cannot be had."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
import torchvision

from rbc_engine.errors import UsageError
from rbc_engine.training.networks import imagenet
from rbc_engine.training.networks.models import Classifier

MEAN = torch.tensor(imagenet._MEAN)[:, None, None]
STD = torch.tensor(imagenet._STD)[:, None, None]


def test_a_trunk_sees_what_torchvision_would_show_it():
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(weights=None)
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    reference.eval()
    classifier = Classifier(types=2, trunk="resnet18").eval()
    mean_rgb, std_rgb = (148.0, 151.0, 130.0), (40.0, 35.0, 50.0)
    imagenet.load_trunk(
        classifier.trunk, reference.state_dict(), mean_rgb=mean_rgb, std_rgb=std_rgb
    )
    levels = torch.randint(0, 256, (2, 3, 64, 64)).float()
    ours = (levels - torch.tensor(mean_rgb)[:, None, None]) / torch.tensor(std_rgb)[:, None, None]
    theirs = (levels / 255 - MEAN) / STD
    with torch.inference_mode():
        got = classifier.trunk.bn1(classifier.trunk.conv1(ours))
        expected = reference.bn1(reference.conv1(theirs))
        torch.testing.assert_close(
            got[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-4
        )
        deeper = torch.randn(1, 64, 16, 16)
        torch.testing.assert_close(classifier.trunk.layer1(deeper), reference.layer1(deeper))


def test_without_a_network_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    lines: list[str] = []
    assert imagenet.fetch_imagenet("resnet18", wanted="auto", log=lines.append) is None
    assert "random weights" in lines[0]
    assert "cannot be reached" in lines[0]
    with pytest.raises(UsageError, match="give --trunk-weights scratch"):
        imagenet.fetch_imagenet("resnet18", wanted="imagenet", log=lines.append)
    assert imagenet.fetch_imagenet("resnet18", wanted="scratch", log=lines.append) is None


def test_weights_that_lack_a_layer_are_refused():
    state = torchvision.models.resnet18(weights=None).state_dict()
    del state["layer2.0.conv1.weight"]
    trunk = Classifier(types=2, trunk="resnet18").trunk
    with pytest.raises(ValueError, match=r"lack layer2\.0\.conv1\.weight"):
        imagenet.load_trunk(trunk, state, mean_rgb=(1, 2, 3), std_rgb=(1, 1, 1))
