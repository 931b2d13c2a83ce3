"""Start a training from a pack's networks.

A pack holds no BatchNorm: export folded each into the convolution before it. Here each gets one
back that computes the same at first, with the statistics of the new data, so that the pack is
fine-tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from rbc_engine.errors import PackError
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks.models import Classifier

__all__ = ["begin_classifier", "begin_detector", "unfold_batchnorm"]

Log = Callable[[str], None]
Weights = Mapping[str, Tensor]

_PREDICTOR = "roi_heads.box_predictor."

BATCHES = 20
"""Batches of the new data for the statistics of the BatchNorms."""


def begin_classifier(
    model: Classifier, pack: Pack, *, same_types: bool, run: Callable[[int], Any], log: Log
) -> None:
    """Put the pack's classifier into `model`; only its trunk if the types are others.

    run: passes batch number 0, 1, ... of the new data through the trunk of `model`.

    Raises PackError if the pack's classifier has another architecture.
    """
    weights = _weights(pack, "classifier.onnx", "model.")
    parts = ["trunk", "head"] if same_types else ["trunk"]
    log(f"the classifier's {' and '.join(parts)} start with those of {pack!r}")
    if not same_types:
        log("its types are not those of the data: the heads start with random weights")
    part = {name: value for name, value in weights.items() if name.partition(".")[0] in parts}
    _check(model, part, parts, pack)
    unfold_batchnorm(model, part, run=run)


def begin_detector(model: FasterRCNN, pack: Pack, *, run: Callable[[int], Any], log: Log) -> None:
    """Put the pack's detector into `model`, without its predictor if its classes are others; if its
    trunk is another, the trunk of the pack's classifier.

    run: passes batch number 0, 1, ... of the new data through `model`.

    Raises PackError if neither fits.
    """
    names = {"head.": "rpn.head.", "backbone.": "backbone."}
    network_a = _renamed(_weights(pack, "detector.onnx"), names)
    names = {"head.": "roi_heads.box_head.", "predictor.": _PREDICTOR}
    whole = network_a | _renamed(_weights(pack, "box_head.onnx"), names)
    if _fits(model, whole):
        log(f"the detector starts with that of {pack!r}")
        unfold_batchnorm(model, whole, run=run)
        return
    # Another number of classes changes the predictor alone.
    shared = {name: value for name, value in whole.items() if not name.startswith(_PREDICTOR)}
    if _fits(model, shared, ["backbone", "rpn", "roi_heads.box_head"]):
        log(f"the detector starts with that of {pack!r}, its classes with random weights")
        unfold_batchnorm(model, shared, run=run)
        return
    trunk = _renamed(_weights(pack, "classifier.onnx", "model."), {"trunk.": "backbone.body."})
    wanted = _expected(model, ["backbone.body"])  # a detector may omit the last stage
    trunk = {name: value for name, value in trunk.items() if name in wanted}
    _check(model, trunk, ["backbone.body"], pack)
    log(f"the detector's trunk starts with that of the classifier of {pack!r}, the rest at random")
    unfold_batchnorm(model, trunk, run=run)


@torch.no_grad()
def unfold_batchnorm(model: nn.Module, weights: Weights, *, run: Callable[[int], Any]) -> None:
    """Load weights without BatchNorm into a model with it, so that both compute the same.

    weights: convolutions with the bias that a folded BatchNorm left them. If `model` has a
        BatchNorm after the convolution, that bias becomes its own: with mean m and variance v of
        the convolution's output over the data, the BatchNorm's weight is sqrt(v + eps) and its bias
        m + b, and the result is the output plus b again.
    run: passes batch number 0, 1, ... through every convolution of `model`.
    """
    pairs = dict(_conv_norm_pairs(model))
    own = model.state_dict()
    followed = {f"{conv}.bias" for conv in pairs}
    for name, value in weights.items():
        if name not in followed:
            own[name].copy_(value.reshape(own[name].shape))
    modules = dict(model.named_modules())
    norms: list[tuple[nn.BatchNorm2d, Tensor, list[Tensor]]] = []
    hooks = []
    for conv, norm_name in pairs.items():
        if f"{conv}.bias" not in weights:
            continue
        norm = modules[norm_name]
        assert isinstance(norm, nn.BatchNorm2d)
        sums: list[Tensor] = []
        bias = weights[f"{conv}.bias"]
        norms.append((norm, bias, sums))
        hooks.append(norm.register_forward_hook(_adds(bias, sums)))
    try:
        for batch in range(BATCHES):
            run(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, bias, sums in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        means, squares = torch.stack(sums).mean(dim=0)
        variance = (squares - means**2).clamp(min=0)
        norm.running_mean.copy_(means)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(means + bias)


def _adds(bias: Tensor, sums: list[Tensor]) -> Callable[..., Tensor]:
    """Note mean and mean square of each channel of a norm's input, and add the bias instead of
    normalising.
    """

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> Tensor:
        x = inputs[0].float()
        sums.append(torch.stack([x.mean((0, 2, 3)), (x**2).mean((0, 2, 3))]))
        return (x + bias[:, None, None]).to(inputs[0].dtype)

    return hook


def _conv_norm_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Return the names of each convolution and the BatchNorm behind it, paired as in
    fold_batchnorm.
    """
    pairs = []
    for prefix, module in model.named_modules():
        before = None
        for name, child in module.named_children():
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(child, nn.BatchNorm2d) and before is not None:
                pairs.append((before, path))
            before = path
    return pairs


def _weights(pack: Pack, name: str, prefix: str = "") -> dict[str, Tensor]:
    model = onnx.load_model_from_string(pack.read(name))
    found = {}
    for tensor in model.graph.initializer:
        if tensor.name.startswith(prefix) and tensor.name.endswith((".weight", ".bias")):
            value = numpy_helper.to_array(tensor).astype(np.float32)
            found[tensor.name.removeprefix(prefix)] = torch.from_numpy(value)
    return found


def _renamed(weights: Weights, prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    return {
        new + name.removeprefix(old): value
        for name, value in weights.items()
        for old, new in prefixes.items()
        if name.startswith(old)
    }


def _expected(model: nn.Module, parts: list[str] | None = None) -> dict[str, int]:
    """Return names and sizes of the weights of a folded `model`."""
    pairs = _conv_norm_pairs(model)
    norms = {norm for _, norm in pairs}
    sizes = {
        name: value.numel()
        for name, value in model.named_parameters()
        if name.rpartition(".")[0] not in norms
    }
    own = dict(model.named_parameters())
    sizes.update({f"{conv}.bias": own[f"{norm}.bias"].numel() for conv, norm in pairs})
    if parts is None:
        return sizes
    return {n: size for n, size in sizes.items() if any(n.startswith(f"{p}.") for p in parts)}


def _fits(model: nn.Module, weights: Weights, parts: list[str] | None = None) -> bool:
    return {n: value.numel() for n, value in weights.items()} == _expected(model, parts)


def _check(model: nn.Module, weights: Weights, parts: list[str], pack: Pack) -> None:
    if not _fits(model, weights, parts):
        raise PackError(
            f"{pack.folder} holds networks of another architecture than the one to be trained; "
            f"name another --start-from, or the trunk that the pack has"
        )
