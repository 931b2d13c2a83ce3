"""Trained networks to ONNX: the graphs of a model pack.

Every graph is one file typed float16, with BatchNorm folded into the convolutions and nothing in it that
TensorRT refuses. What lies between network A and network B are the engine's kernels, not ONNX.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.detection import FasterRCNN

from rbc_engine.training.networks.models import Classifier

__all__ = ["OPSET", "export_classifier", "export_detector", "fold_batchnorm"]

OPSET = 20

_MAX_BATCH = 1024
_MAX_REGIONS = 1 << 20
_MAX_CANVAS_CELLS = 1024


def export_detector(model: FasterRCNN) -> tuple[bytes, bytes]:
    """The two networks of a detector made by `build_detector`.

    Network A: `canvas` uint8 [N, H, W, 3] -> `features_0`… float16 [N, C, h, w] (the levels that RoIAlign reads),
    `objectness_0`… float16 [N, A, h, w] and `deltas_0`… float16 [N, 4 A, h, w] (every level). N, H and W are
    dynamic; H and W are multiples of the coarsest stride.

    Network B: `roi_features` float16 [R, C, S, S] -> `class_logits` float16 [R, classes], `box_deltas`
    float16 [R, 4 * classes], dx dy dw dh of class c in columns 4c..4c+3. R is dynamic; class 0 is the background.

    Returns both as ONNX. The model is left as it was.
    """
    roi_heads = model.roi_heads
    levels = len(model.rpn.anchor_generator.sizes)
    roi_levels = len(roi_heads.box_roi_pool.featmap_names)
    cell = model.transform.size_divisible
    batch = Dim("batch", max=_MAX_BATCH)
    network_a = _to_onnx(
        _NetworkA(model, roi_levels),
        torch.zeros(2, 4 * cell, 6 * cell, 3, dtype=torch.uint8),
        {
            0: batch,
            1: cell * Dim("cells_down", max=_MAX_CANVAS_CELLS),
            2: cell * Dim("cells_across", max=_MAX_CANVAS_CELLS),
        },
        input_name="canvas",
        output_names=[
            *(f"features_{level}" for level in range(roi_levels)),
            *(f"objectness_{level}" for level in range(levels)),
            *(f"deltas_{level}" for level in range(levels)),
        ],
    )
    size = roi_heads.box_roi_pool.output_size
    network_b = _to_onnx(
        _NetworkB(model),
        torch.zeros(2, model.backbone.out_channels, *size, dtype=torch.float16),
        {0: Dim("regions", max=_MAX_REGIONS)},
        input_name="roi_features",
        output_names=["class_logits", "box_deltas"],
    )
    return network_a, network_b


def export_classifier(
    model: Classifier, *, patch_px: int, temperatures: Sequence[float] | None = None
) -> bytes:
    """Trunk and heads: `patches` float16 [R, 3, P, P] -> `feature_map` float16 [R, features, p, p] and
    `probabilities` float32 [R, T], the sigmoid in float32. R is dynamic, P is `patch_px`.

    temperatures: one a type, which its logits are divided by, in the last layer; None leaves them.

    The heads' weights keep their names, `model.head.first.weight` and so on, for the fused kernel to be given them.

    Returns ONNX. The model is left as it was.
    """
    if temperatures is not None:
        model = copy.deepcopy(model)
        with torch.no_grad():
            factors = torch.tensor(temperatures)
            last = model.head.second
            last.weight /= factors[:, None, None, None]
            assert last.bias is not None
            last.bias /= factors
    return _to_onnx(
        _Probabilities(model),
        torch.zeros(2, 3, patch_px, patch_px, dtype=torch.float16),
        {0: Dim("regions", max=_MAX_REGIONS)},
        input_name="patches",
        output_names=["feature_map", "probabilities"],
    )


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose BatchNorms have become part of the convolutions before them.

    Relies on a module's children being registered in the order in which they run, as torchvision's are.
    Raises ValueError if a BatchNorm has no convolution before it.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        before: tuple[str, nn.Module] | None = None
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                if before is None or not isinstance(before[1], nn.Conv2d):
                    raise ValueError(
                        f"BatchNorm {name!r} of {type(module).__name__} has no convolution before it"
                    )
                setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(module, name, nn.Identity())
            before = name, child
    return folded


class _NetworkA(nn.Module):
    def __init__(self, model: FasterRCNN, roi_levels: int) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.rpn.head
        self.roi_levels = roi_levels
        # Grey levels are whole numbers, so that a canvas of the mean colour comes out as exactly zero.
        self.mean = [255 * mean for mean in model.transform.image_mean]
        self.scale = [1 / (255 * std) for std in model.transform.image_std]

    def forward(self, canvas: Tensor) -> tuple[Tensor, ...]:
        # TensorRT takes uint8 as a network input, and nothing but a cast may read it.
        levels = canvas.float().permute(0, 3, 1, 2)
        mean = torch.tensor(self.mean).view(1, 3, 1, 1)
        scale = torch.tensor(self.scale).view(1, 3, 1, 1)
        dtype = next(self.backbone.parameters()).dtype
        features = list(self.backbone(((levels - mean) * scale).to(dtype)).values())
        objectness, deltas = self.head(features)
        return (*features[: self.roi_levels], *objectness, *deltas)


class _NetworkB(nn.Module):
    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.head = model.roi_heads.box_head
        self.predictor = model.roi_heads.box_predictor

    def forward(self, roi_features: Tensor) -> tuple[Tensor, Tensor]:
        class_logits, box_deltas = self.predictor(self.head(roi_features))
        return class_logits, box_deltas


class _Probabilities(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        feature_map, logits = self.model(patches)
        return feature_map, logits.float().sigmoid()


def _to_onnx(
    module: nn.Module,
    example: Tensor,
    dynamic: dict[int, Dim],
    *,
    input_name: str,
    output_names: Sequence[str],
) -> bytes:
    program = torch.onnx.export(
        fold_batchnorm(module).half(),
        (example,),
        dynamo=True,
        optimize=True,
        opset_version=OPSET,
        input_names=[input_name],
        output_names=list(output_names),
        dynamic_shapes=(dynamic,),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _strip_notes(model)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _strip_notes(model: onnx.ModelProto) -> None:
    """Removes what the exporter notes down about its origin: stack traces with the paths of this machine."""
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    model.graph.ClearField("value_info")
