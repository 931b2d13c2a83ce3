"""Run the reference pipeline on a GPU, its networks compiled by torch-tensorrt in fp16."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from rbc_engine.bench.peers.base import PeerMissingError
from rbc_engine.bench.peers.boosting import sklearn_caller
from rbc_engine.bench.peers.in_dtype import InDtype
from rbc_engine.bench.peers.torch_pipeline import TorchPipeline
from rbc_engine.devices.cuda.driver import ask_driver
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks.restore import restore_classifier, restore_detector
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.results import Regions

__all__ = ["TorchTensorRtPeer"]


class TorchTensorRtPeer:
    """Run on a GPU (not yet tried on one). Between the networks it is the reference, on the GPU
    where torchvision has it.
    """

    name = "torch-tensorrt"
    precision = "fp16"

    def __init__(self, pack: Pack, *, threads: int) -> None:
        problem = ask_driver().problem
        if problem is not None:
            raise PeerMissingError(f"it needs a GPU: {problem}")
        if find_spec("torch_tensorrt") is None:
            raise PeerMissingError(
                "torch-tensorrt is not installed; "
                "pip install 'torch-tensorrt>=2.14,<2.15' --extra-index-url https://pypi.nvidia.com"
            )
        torch.set_num_threads(threads)
        self.description = (
            f"PyTorch {torch.__version__}, torch-tensorrt, fp16; torchvision, PIL, scikit-learn"
        )
        detector = restore_detector(pack).cuda()
        detector.backbone = _compiled(detector.backbone)
        detector.rpn.head = _compiled(detector.rpn.head)
        detector.roi_heads.box_head = _compiled(detector.roi_heads.box_head)
        classifier = _compiled(restore_classifier(pack).cuda())

        def classify(patches: Tensor) -> Tensor:
            logits: Tensor = classifier(patches)[1]
            return logits

        self._pipeline = TorchPipeline(
            pack,
            detector=detector,
            classify=classify,
            caller=sklearn_caller(pack),
            device="cuda",
        )

    def analyze(self, ref: FieldRef) -> Regions:
        return self._pipeline.analyze(ref)

    def close(self) -> None:
        """Drop the compiled networks."""
        torch._dynamo.reset()


def _compiled(module: torch.nn.Module) -> Any:
    network = InDtype(module, torch.float16)
    return torch.compile(network, backend="torch_tensorrt", dynamic=True)
