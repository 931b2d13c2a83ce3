"""A detector that in training leaves out what nobody labelled."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

__all__ = ["in_unknown", "leave_out_unknown"]

Target = dict[str, Tensor]

# Of a proposal's area: with this share of it in one unknown box, it says nothing of cells or of background.
_UNKNOWN_SHARE = 0.4
_LEFT_OUT = -1


def leave_out_unknown(model: FasterRCNN) -> FasterRCNN:
    """Makes a detector's two losses pass over proposals in unknown boxes that match no cell.

    Its targets then need `unknown`, float32 [U, 4], in pixels of images that the model does not resize: the shorter
    side of each must be the model's own. The same model is returned.
    """
    model.rpn.__class__ = _ProposalNetwork
    model.roi_heads.__class__ = _Heads
    return model


def in_unknown(boxes: Tensor, unknown: Tensor) -> Tensor:
    """bool [N], whether a good part of each box lies in one unknown box.

    boxes: float32 [N, 4]. unknown: float32 [U, 4]; U may be 0.
    """
    if not len(unknown):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    low = torch.maximum(boxes[:, None, :2], unknown[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], unknown[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).clamp(min=1e-6)
    return (shared / area[:, None]).amax(dim=1) > _UNKNOWN_SHARE


class _ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, boxes, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & in_unknown(boxes, target["unknown"])] = _LEFT_OUT
        return labels, matched


class _Heads(RoIHeads):  # type: ignore[misc]
    def select_training_samples(
        self, proposals: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], ...]:
        self._unknown = [target["unknown"] for target in targets]
        return cast("tuple[list[Tensor], ...]", super().select_training_samples(proposals, targets))

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], boxes: list[Tensor], classes: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        matched, labels = super().assign_targets_to_proposals(proposals, boxes, classes)
        for label, proposed, unknown in zip(labels, proposals, self._unknown, strict=True):
            label[(label == 0) & in_unknown(proposed, unknown)] = _LEFT_OUT
        return matched, labels
