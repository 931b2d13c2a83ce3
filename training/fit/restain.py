"""Transfer one laboratory's stain and light to another's cells: optical densities, channel by
channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rbc_engine.training.datasets.laboratories.base import Stain
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["restain_field", "restain_patches", "vary_stain"]

_RATIO = (0.2, 5.0)
# Spreads of vary_stain, on a logarithmic scale: of all densities, of those of one channel, and of
# the background.
_DENSITY_SPREAD, _CHANNEL_SPREAD, _BACKGROUND_SPREAD = 0.45, 0.3, 0.12
_BACKGROUND_LEVELS, _DENSITIES = (60.0, 252.0), (0.04, 2.5)


def vary_stain(stain: Stain, rng: np.random.Generator) -> Stain:
    """Return a stain near this one, which no laboratory of the collection need have."""
    spread = rng.normal(0, _DENSITY_SPREAD) + rng.normal(0, _CHANNEL_SPREAD, 3)
    light = rng.normal(0, _BACKGROUND_SPREAD) + rng.normal(0, _BACKGROUND_SPREAD, 3)
    background = np.clip(stain.background * np.exp(light), *_BACKGROUND_LEVELS)
    density = np.clip(stain.density * np.exp(spread), *_DENSITIES)
    return Stain(background=background.astype(np.float32), density=density.astype(np.float32))


def restain_field(pixels: UInt8, stain: Stain, target: Stain, share: float) -> tuple[UInt8, Stain]:
    """Transfer pixels, uint8 [H, W, 3], from one stain to another, and return the stain that they
    then have.

    share: how far; 0 leaves the field unchanged and 1 gives background and cells those of `target`;
        on a logarithmic scale.
    """
    ratio = np.clip(target.density / stain.density, *_RATIO) ** share
    background = stain.background * (target.background / stain.background) ** share
    levels = np.maximum(np.arange(256, dtype=np.float32), 1.0)[:, None]
    table = background * np.exp(np.log(levels / stain.background) * ratio)
    table = np.clip(table + 0.5, 0, 255).astype(np.uint8)
    changed = np.stack([table[:, c][pixels[..., c]] for c in range(3)], axis=-1)
    now = Stain(
        background=background.astype(np.float32),
        density=(stain.density * ratio).astype(np.float32),
    )
    return changed, now


def restain_patches(
    patches: Tensor,
    stains: tuple[Float32, Float32],
    targets: tuple[Float32, Float32],
    share: Float32,
    *,
    mean_rgb: Sequence[float],
    std_rgb: Sequence[float],
) -> Tensor:
    """Do the same for a batch of normalised patches, float32 [N, 3, P, P], each from its own stain
    to its own target.

    stains, targets: background levels and densities, float32 [N, 3] each. share: float32 [N], see
    restain_field.
    mean_rgb, std_rgb: of the patches' normalisation.
    """
    mean = torch.tensor(tuple(mean_rgb), dtype=torch.float32).view(1, 3, 1, 1)
    std = torch.tensor(tuple(std_rgb), dtype=torch.float32).view(1, 3, 1, 1)
    background, density, to_background, to_density = (
        torch.from_numpy(values)[:, :, None, None] for values in (*stains, *targets)
    )
    far = torch.from_numpy(share)[:, None, None, None]
    levels = (patches * std + mean).clamp(1, 255)
    ratio = (to_density / density).clamp(*_RATIO) ** far
    lit = background * (to_background / background) ** far
    levels = lit * torch.exp(torch.log(levels / background) * ratio)
    return (levels.clamp(0, 255) - mean) / std
