"""The networks that are trained: torchvision's Faster R-CNN, and a trunk with one small network a type."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.training.networks.efficientnet_lite import LITE_TRUNKS, LiteTrunk

__all__ = [
    "IMAGE_STD",
    "MOST_CLASSES",
    "Classifier",
    "DetectorTrunk",
    "TypeHeads",
    "build_detector",
]

DetectorTrunk = Literal["resnet18", "resnet50", "resnet101"]
ClassifierTrunk = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
]

IMAGE_STD = 0.25
"""What the detector divides its input by, after 0..255 has become 0..1 and the mean colour is subtracted."""

MOST_CLASSES = 16
"""Of a detector, background included: what the engine's postprocess_detections takes."""

_FIRST_STRIDE_PX = 4
_LONGEST_SIDE_PX = (
    1 << 16
)  # the short side alone sets the scale: the engine knows no longest side either


def build_detector(
    *,
    trunk: DetectorTrunk = "resnet18",
    settings: DetectorSettings,
    representation: int = 512,
    classes: int = 2,
) -> FasterRCNN:
    """A Faster R-CNN with random weights whose `forward` is, step by step, the engine's detection path.

    settings: S strides use the first S - 1 stages of the trunk; the last level is a max-pooling of the one
        before it. `(4, 8, 16, 32)` therefore leaves the trunk's fourth stage out.
    representation: width of the box head's two layers.
    classes: 2 to MOST_CLASSES, of which class 0 is the background. With more than 2 the last step is not the engine's:
        torchvision makes each proposal a candidate for every class and suppresses overlaps within a class, the engine
        for its likeliest class and over all classes.

    Takes images float32 [3, H, W], 0..1, of any sizes. Raises ValueError if the strides do not fit a ResNet, or
    for a number of classes that the engine does not take.
    """
    if not 2 <= classes <= MOST_CLASSES:
        raise ValueError(f"classes must lie in 2..{MOST_CLASSES} (got {classes})")
    strides = settings.strides_px
    stages = len(strides) - 1
    if strides[0] != _FIRST_STRIDE_PX or not 1 <= stages <= 4:
        raise ValueError(
            f"strides_px must start at {_FIRST_STRIDE_PX} and have 2 to 5 levels for a ResNet (got {strides})"
        )
    levels = [str(stage) for stage in range(stages)] + ["pool"]
    anchors = AnchorGenerator(
        settings.anchor_sizes_px, (settings.anchor_aspect_ratios,) * len(strides)
    )
    return FasterRCNN(
        _pyramid(trunk, stages, settings.feature_channels),
        min_size=settings.short_side_px,
        max_size=_LONGEST_SIDE_PX,
        # The canvas is padded to whole cells of the coarsest level, or its anchors would not lie a stride apart.
        size_divisible=strides[-1],
        image_mean=[level / 255 for level in settings.mean_rgb],
        image_std=[IMAGE_STD] * 3,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=settings.proposals_per_level,
        rpn_pre_nms_top_n_test=settings.proposals_per_level,
        rpn_post_nms_top_n_train=settings.proposals,
        rpn_post_nms_top_n_test=settings.proposals,
        rpn_nms_thresh=settings.proposal_nms_iou,
        box_roi_pool=MultiScaleRoIAlign(
            levels[: settings.roi_levels],
            settings.roi_size,
            settings.roi_sampling_ratio,
            canonical_scale=settings.roi_canonical_px,
            canonical_level=settings.roi_canonical_level,
        ),
        box_head=TwoMLPHead(settings.feature_channels * settings.roi_size**2, representation),
        box_predictor=FastRCNNPredictor(representation, classes),
        box_score_thresh=settings.score_threshold,
        box_nms_thresh=settings.nms_iou,
        box_detections_per_img=settings.max_regions,
    )


def _pyramid(trunk: DetectorTrunk, stages: int, channels: int) -> BackboneWithFPN:
    resnet = _resnet(trunk)
    finest_channels = resnet.inplanes // 8
    return BackboneWithFPN(
        resnet,
        {f"layer{stage + 1}": str(stage) for stage in range(stages)},
        [finest_channels * 2**stage for stage in range(stages)],
        channels,
        extra_blocks=LastLevelMaxPool(),
    )


class TypeHeads(nn.Module):
    """T independent networks features -> hidden -> 1, one a type, computed at once.

    Rows t * hidden to (t + 1) * hidden of `first.weight` [T * hidden, features] belong to type t, and so does row
    t of `second.weight` [T, hidden, 1, 1].
    """

    def __init__(
        self, features: int, *, types: int, hidden: int = 512, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first = nn.Linear(features, types * hidden)
        self.dropout = nn.Dropout(dropout)
        # A grouped convolution rather than a product and a sum: OpenVINO 2026.4 adds the wrong type's bias to a sum.
        self.second = nn.Conv2d(types * hidden, types, 1, groups=types)

    def forward(self, features: Tensor) -> Tensor:
        """features: float [R, features]. Returns logits [R, T]."""
        hidden = self.dropout(torch.relu(self.first(self.dropout(features))))
        logits: Tensor = self.second(hidden[:, :, None, None])
        return logits.flatten(1)


class Classifier(nn.Module):
    """A trunk, of a ResNet or an EfficientNet-Lite, and, on its pooled features, the heads.

    features: channels of the trunk's last feature map, 2048 for ResNet-50, 1280 for EfficientNet-Lite.
    head: usable alone on pooled features that were stored.
    """

    def __init__(
        self,
        *,
        types: int,
        trunk: ClassifierTrunk = "resnet50",
        hidden: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features: int
        if trunk in LITE_TRUNKS:
            self.trunk: nn.Module = LiteTrunk(trunk)
            self.features = self.trunk.features
        else:
            resnet = _resnet(trunk)
            self.features = resnet.inplanes
            self.trunk = IntermediateLayerGetter(resnet, {"layer4": "feature_map"})
        self.head = TypeHeads(self.features, types=types, hidden=hidden, dropout=dropout)

    def feature_map(self, patches: Tensor) -> Tensor:
        """patches: float [R, 3, P, P], normalised. Returns [R, features, P / 32, P / 32], rounded up."""
        feature_map: Tensor = self.trunk(patches)["feature_map"]
        return feature_map

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """patches: float [R, 3, P, P], normalised. Returns the feature map and the logits [R, T]."""
        feature_map = self.feature_map(patches)
        logits: Tensor = self.head(feature_map.mean((2, 3)))
        return feature_map, logits


def _resnet(name: str) -> Any:
    """Its last layer is there too; whoever calls this takes the stages and leaves that out."""
    return getattr(torchvision.models, name)(weights=None, norm_layer=nn.BatchNorm2d)
