"""What a training computes on."""

from __future__ import annotations

import torch

from rbc_engine.errors import UsageError

__all__ = ["CPU", "training_device"]

CPU = torch.device("cpu")


def training_device(name: str) -> torch.device:
    """The device that --device names: cpu, cuda or cuda:N.

    Raises UsageError for any other, and for a GPU that this torch cannot use.
    """
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UsageError(f"--device must be cpu, cuda or cuda:N (got {name!r:.60})")
    if kind == "cpu":
        return CPU
    if not torch.cuda.is_available():
        built = "built without CUDA" if torch.version.cuda is None else "finds no GPU or driver"
        raise UsageError(
            f"--device {name} needs an NVIDIA GPU, and torch {torch.__version__} {built}; "
            f"use --device cpu, or install torch for CUDA"
        )
    if colon and int(number) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name} does not exist: there are {torch.cuda.device_count()} GPUs; "
            f"name a smaller number"
        )
    return torch.device("cuda", int(number) if colon else torch.cuda.current_device())
