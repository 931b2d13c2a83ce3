"""Compile the classifier of a pack with torch-tensorrt and compare it with PyTorch.

It is another way to TensorRT, with which the engine's own can be compared on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from rbc_engine.devices.cuda.driver import ask_driver
from rbc_engine.errors import RbcError, UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks.restore import restore_classifier

__all__ = ["CHECKS", "check_export"]

CHECKS = ("torch-tensorrt",)
_PATCHES = 32
_LIMIT = 0.02
"""Largest difference of a probability between TensorRT in fp16 and PyTorch in fp32."""

Compile = Callable[[nn.Module, Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]


def check_export(
    pack: Pack, check: str, *, compile_module: Compile | None = None, device: str = "cuda"
) -> float:
    """Compare probabilities of random patches from the compiled module in fp16 and the module
    itself in fp32.

    check: one of CHECKS. compile_module, device: instead of torch-tensorrt and its GPU, for tests.

    Returns the largest difference. Raises UsageError if the check is unknown or cannot be run here,
    RbcError if the difference is too large.
    """
    if check not in CHECKS:
        raise UsageError(f"--check must be one of {', '.join(CHECKS)} (got {check!r})")
    if compile_module is None:
        compile_module = _torch_tensorrt()
    model = restore_classifier(pack).to(device)
    side = pack.manifest.classifier.patch_px
    patches = torch.from_numpy(
        np.random.default_rng(0).normal(size=(_PATCHES, 3, side, side)).astype(np.float32)
    ).to(device)
    with torch.inference_mode():
        expected = model(patches)[1].sigmoid()
    half = model.half()
    compiled = compile_module(half, patches.half())
    with torch.inference_mode():
        got = compiled(patches.half())[1].float().sigmoid()
    difference = float((got - expected).abs().max())
    if not difference <= _LIMIT:
        raise RbcError(
            f"{pack.name} compiled with {check} gives probabilities that differ by up to "
            f"{difference:.3g} from PyTorch's, more than {_LIMIT:g}: do not release this pack for "
            "GPUs; export it again"
        )
    return difference


def _torch_tensorrt() -> Compile:
    problem = ask_driver().problem
    if problem is not None:
        raise UsageError(f"--check torch-tensorrt needs a GPU: {problem}")
    if find_spec("torch_tensorrt") is None:
        raise UsageError(
            "--check torch-tensorrt: torch-tensorrt is not installed; "
            "pip install 'torch-tensorrt>=2.14,<2.15' --extra-index-url https://pypi.nvidia.com"
        )
    import torch_tensorrt

    def compile_module(
        module: nn.Module, example: Tensor
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        # Types are those of the module, as TensorRT 11 requires.
        program = torch.export.export(module, (example,))
        compiled: Callable[[Tensor], tuple[Tensor, Tensor]] = torch_tensorrt.dynamo.compile(
            program, arg_inputs=[example]
        )
        return compiled

    return compile_module
