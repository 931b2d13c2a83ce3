"""Compute a network in another type, with float32 in and float32 out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["InDtype"]


class InDtype(nn.Module):
    """Wrap a network. What surrounds the networks (anchors, boxes, suppression) has no bfloat16
    kernels and needs float32.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, inputs: Any) -> Any:
        return _cast(self.module(_cast(inputs, self.dtype)), torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast every tensor in lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return value.to(dtype)
    if isinstance(value, dict):
        return type(value)((key, _cast(one, dtype)) for key, one in value.items())
    return type(value)(_cast(one, dtype) for one in value)
