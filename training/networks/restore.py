"""A pack's networks as torch modules, for parity checks and for whoever is measured against the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast, get_args

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torchvision.models.detection import FasterRCNN

from rbc_engine.errors import PackError
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks.export import fold_batchnorm
from rbc_engine.training.networks.models import (
    MOST_CLASSES,
    Classifier,
    ClassifierTrunk,
    DetectorTrunk,
    build_detector,
)

__all__ = ["restore_classifier", "restore_detector"]

# Where the weights of the graphs live in the modules.
_DETECTOR = {"backbone.": "backbone.", "head.": "rpn.head."}
_BOX_HEAD = {"head.": "roi_heads.box_head.", "predictor.": "roi_heads.box_predictor."}
_CLASSIFIER = {"model.": ""}


def restore_detector(pack: Pack) -> FasterRCNN:
    """torchvision's FasterRCNN with every weight of the pack, BatchNorm folded, float32, in evaluation mode.

    Raises PackError if the pack's detector is none that build_detector makes.
    """
    state = _weights(pack, "detector.onnx", _DETECTOR) | _weights(pack, "box_head.onnx", _BOX_HEAD)
    representation = len(state.get("roi_heads.box_head.fc6.weight", ()))
    classes = len(state.get("roi_heads.box_predictor.cls_score.weight", ()))

    def build(trunk: str) -> nn.Module:
        model: nn.Module = build_detector(
            trunk=cast(DetectorTrunk, trunk),
            settings=pack.manifest.detector,
            representation=representation,
            classes=min(max(classes, 2), MOST_CLASSES),  # the weights of any other number fit none
        )
        return model

    return cast(FasterRCNN, _restored(build, get_args(DetectorTrunk), state, pack, "detector.onnx"))


def restore_classifier(pack: Pack) -> Classifier:
    """The classifier with every weight of the pack, BatchNorm folded, float32, in evaluation mode.

    Raises PackError if it is none that Classifier makes.
    """
    state = _weights(pack, "classifier.onnx", _CLASSIFIER)
    types = len(pack.types)
    hidden = len(state.get("head.first.weight", ())) // types

    def build(trunk: str) -> nn.Module:
        return Classifier(types=types, trunk=cast(ClassifierTrunk, trunk), hidden=hidden)

    trunks = get_args(ClassifierTrunk)
    return cast(Classifier, _restored(build, trunks, state, pack, "classifier.onnx"))


def _restored(
    build: Callable[[str], nn.Module],
    trunks: Sequence[str],
    state: Mapping[str, torch.Tensor],
    pack: Pack,
    name: str,
) -> nn.Module:
    sizes = {key: value.shape for key, value in state.items()}
    for trunk in trunks:
        with torch.device("meta"):  # no memory, and no random weights that nobody needs
            shapes = {key: v.shape for key, v in fold_batchnorm(build(trunk)).state_dict().items()}
        if shapes == sizes:
            model = fold_batchnorm(build(trunk))
            model.load_state_dict(state, strict=True)
            return model.eval()
    raise PackError(
        f"{name} of {pack.folder} is no network that this version trains; make the pack again"
    )


def _weights(pack: Pack, name: str, homes: Mapping[str, str]) -> dict[str, torch.Tensor]:
    state = {}
    for tensor in onnx.load_model_from_string(pack.read(name)).graph.initializer:
        for prefix, home in homes.items():
            if tensor.name.startswith(prefix):
                values = numpy_helper.to_array(tensor).astype(np.float32)
                state[home + tensor.name.removeprefix(prefix)] = torch.from_numpy(values)
    return state
