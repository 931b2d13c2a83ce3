"""Run the paper's pipeline as its authors would write it today: torchvision, PIL, PyTorch eager,
scikit-learn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rbc_engine.bench.peers.boosting import sklearn_caller
from rbc_engine.bench.peers.torch_pipeline import TorchPipeline
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks.restore import restore_classifier, restore_detector
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.results import Regions

__all__ = ["ReferencePeer"]


class ReferencePeer:
    """Compute in fp32, one field after the other, every network on all cores, all regions of a
    field in one batch.

    The pack's BatchNorms are folded into its convolutions, which makes this faster than what was
    published.
    """

    name = "reference"
    precision = "fp32"

    def __init__(self, pack: Pack, *, threads: int) -> None:
        torch.set_num_threads(threads)
        self.description = (
            f"PyTorch {torch.__version__} eager, torchvision's Faster R-CNN, PIL, scikit-learn"
        )
        classifier = restore_classifier(pack)

        def classify(patches: Tensor) -> Tensor:
            logits: Tensor = classifier(patches)[1]
            return logits

        self._pipeline = TorchPipeline(
            pack,
            detector=restore_detector(pack),
            classify=classify,
            caller=sklearn_caller(pack),
        )

    def analyze(self, ref: FieldRef) -> Regions:
        return self._pipeline.analyze(ref)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
