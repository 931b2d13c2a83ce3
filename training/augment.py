"""Random changes of light, stain and orientation, on whole batches of patches."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["flip_and_turn", "flip_and_turn_boxes", "vary_colour"]


def vary_colour(
    images: Tensor, *, generator: torch.Generator, strength: float = 1.0, offset: float = 0.0
) -> Tensor:
    """Gain a channel (stain, white balance), contrast, brightness, noise.

    images: float32 [N, 3, H, W], normalised, so that levels are in units of the standard deviation; `offset`
    moves zero to the level where light is none (mean / std), so that a gain acts as light does.
    """
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, 1, 1, generator=generator)

    gain = (1 + strength * uniform(-0.12, 0.12, 3)) * (1 + strength * uniform(-0.15, 0.15, 1))
    images = (images + offset) * gain - offset
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + strength * uniform(-0.25, 0.25, 1)) + mean
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (1 + strength * uniform(-0.5, 0.3, 1))
    noise = torch.randn(images.shape, generator=generator) * uniform(0.0, 0.08 * strength, 1)
    return images + noise


def flip_and_turn(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Each of the eight symmetries of the square, one drawn for each image."""
    turned = torch.empty_like(images)
    choice = torch.randint(8, (len(images),), generator=generator)
    for symmetry in range(8):
        chosen = choice == symmetry
        if chosen.any():
            batch = images[chosen].rot90(symmetry % 4, (2, 3))
            turned[chosen] = batch.flip(3) if symmetry >= 4 else batch
    return turned


def flip_and_turn_boxes(
    images: Tensor, boxes: list[Tensor], *, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """One of the eight symmetries of the square for a whole batch of square images and their boxes.

    images: [N, 3, S, S]. boxes: N tensors float32 [R, 4], x0 y0 x1 y1 in pixels.
    """
    side = images.shape[-1]
    symmetry = int(torch.randint(8, (1,), generator=generator))
    images = images.rot90(symmetry % 4, (2, 3))
    for _ in range(symmetry % 4):  # a quarter turn against the clock: (x, y) goes to (y, side - x)
        boxes = [torch.stack([b[:, 1], side - b[:, 2], b[:, 3], side - b[:, 0]], 1) for b in boxes]
    if symmetry >= 4:
        images = images.flip(3)
        boxes = [torch.stack([side - b[:, 2], b[:, 1], side - b[:, 0], b[:, 3]], 1) for b in boxes]
    return images.contiguous(memory_format=torch.channels_last), boxes
