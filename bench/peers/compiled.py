"""Run the reference pipeline compiled by torch.compile's inductor, in bf16 if the CPU computes in
it.
"""

from __future__ import annotations

import shutil
from typing import Any

import torch
from torch import Tensor

from rbc_engine.bench.peers.base import PeerMissingError
from rbc_engine.bench.peers.boosting import sklearn_caller
from rbc_engine.bench.peers.in_dtype import InDtype
from rbc_engine.bench.peers.torch_pipeline import TorchPipeline
from rbc_engine.lanes.stages.patch_batches import split_batches
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks.restore import restore_classifier, restore_detector
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.results import Regions

__all__ = ["CompiledPeer"]

_BATCHES = (16, 64)
"""Fixed sizes, so that nothing is recompiled for each field's number of regions."""


class CompiledPeer:
    """Freeze and pack the weights, channels last. Everything between the networks is the
    reference's.
    """

    name = "compiled"

    def __init__(self, pack: Pack, *, threads: int) -> None:
        if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
            raise PeerMissingError("torch.compile needs a C++ compiler; install g++")
        torch.set_num_threads(threads)
        torch._inductor.config.freezing = True
        bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        dtype = torch.bfloat16 if bf16 else torch.float32
        self.precision = "bf16" if bf16 else "fp32"
        self.description = (
            f"PyTorch {torch.__version__}, torch.compile (inductor), {self.precision}; "
            "torchvision, PIL, scikit-learn"
        )
        detector = restore_detector(pack)
        detector.backbone = _compiled(detector.backbone, dtype)
        detector.rpn.head = _compiled(detector.rpn.head, dtype)
        # A field may have fewer proposals than the maximum: the second size is compiled for any.
        detector.roi_heads.box_head = _compiled(detector.roi_heads.box_head, dtype, dynamic=None)
        classifier = _compiled(restore_classifier(pack), dtype)

        def classify(patches: Tensor) -> Tensor:
            """Classify patches padded to whole batches."""
            logits = []
            begin = 0
            for size in split_batches(len(patches), _BATCHES):
                batch = patches[begin : begin + size]
                begin += size
                if len(batch) < size:
                    batch = torch.cat([batch, batch.new_zeros(size - len(batch), *batch.shape[1:])])
                logits.append(classifier(batch.contiguous(memory_format=torch.channels_last))[1])
            return torch.cat(logits)[: len(patches)]

        self._pipeline = TorchPipeline(
            pack,
            detector=detector,
            classify=classify,
            caller=sklearn_caller(pack),
        )

    def analyze(self, ref: FieldRef) -> Regions:
        with torch.inference_mode():
            return self._pipeline.analyze(ref)

    def close(self) -> None:
        """Drop the compiled code."""
        torch._dynamo.reset()


def _compiled(module: torch.nn.Module, dtype: torch.dtype, *, dynamic: bool | None = False) -> Any:
    network = InDtype(module, dtype).to(memory_format=torch.channels_last)
    return torch.compile(network, dynamic=dynamic)
