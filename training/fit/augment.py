"""Change light, stain and orientation at random, on whole batches of patches."""

from __future__ import annotations

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from rbc_engine.types.arrays import UInt8

__all__ = ["blur_some", "flip_and_turn", "flip_and_turn_boxes", "jpeg", "vary_colour", "vary_light"]


def vary_colour(
    images: Tensor, *, generator: torch.Generator, strength: float = 1.0, offset: float = 0.0
) -> Tensor:
    """Vary the gain of channels (stain, white balance), mixing of channels (other cameras),
    contrast, brightness, noise.

    images: float32 [N, 3, H, W], normalised, so that levels are in units of the standard deviation;
    `offset` moves zero to the level without light (mean / std), so that a gain acts as light does.
    """
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, 1, 1, generator=generator)

    gain = (1 + strength * uniform(-0.12, 0.12, 3)) * (1 + strength * uniform(-0.15, 0.15, 1))
    images = (images + offset) * gain
    mixing = torch.eye(3) + strength * uniform(-0.06, 0.06, 3, 3)[..., 0, 0]
    mixing = mixing / mixing.sum(dim=2, keepdim=True)
    images = torch.einsum("nij,njhw->nihw", mixing, images) - offset
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + strength * uniform(-0.25, 0.25, 1)) + mean
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (1 + strength * uniform(-0.5, 0.3, 1))
    noise = torch.randn(images.shape, generator=generator) * uniform(0.0, 0.08 * strength, 1)
    return images + noise


def vary_light(
    images: Tensor, *, generator: torch.Generator, strength: float = 0.15, offset: float = 0.0
) -> Tensor:
    """Apply a gradient of light across each image, of up to `strength` from its middle to its edge.

    images, offset: as in vary_colour.
    """
    count, _, height, width = images.shape
    slope = strength * (2 * torch.rand(count, 2, 1, 1, generator=generator) - 1)
    y = torch.linspace(-1, 1, height).view(1, 1, height, 1)
    x = torch.linspace(-1, 1, width).view(1, 1, 1, width)
    return (images + offset) * (1 + slope[:, :1] * y + slope[:, 1:] * x) - offset


def blur_some(
    images: Tensor, *, generator: torch.Generator, share: float, most_px: float
) -> Tensor:
    """Put images out of focus: a Gaussian of 0.3 to `most_px` px on about `share` of them, the same
    for all of these.
    """
    chosen = torch.rand(len(images), generator=generator) < share
    if not chosen.any():
        return images
    sigma = 0.3 + (most_px - 0.3) * float(torch.rand(1, generator=generator))
    side = 2 * round(2 * sigma) + 1
    blurred = images.clone()
    blurred[chosen] = gaussian_blur(images[chosen], [side, side], [sigma, sigma])
    return blurred


def jpeg(image: UInt8, *, quality: int) -> UInt8:
    """Return uint8 [H, W, 3] as a camera's JPEG of a quality in 1..100 shows it."""
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorsubsampling="420"
    )
    return np.asarray(simplejpeg.decode_jpeg(data))


def flip_and_turn(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Apply one of the eight symmetries of the square, drawn for each image."""
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
    """Apply one of the eight symmetries of the square to a whole batch of square images and their
    boxes.

    images: [N, 3, S, S]. boxes: N tensors float32 [R, 4], x0 y0 x1 y1 in pixels.
    """
    side = images.shape[-1]
    symmetry = int(torch.randint(8, (1,), generator=generator))
    images = images.rot90(symmetry % 4, (2, 3))
    for _ in range(symmetry % 4):  # a quarter turn counter-clockwise: (x, y) goes to (y, side - x)
        boxes = [torch.stack([b[:, 1], side - b[:, 2], b[:, 3], side - b[:, 0]], 1) for b in boxes]
    if symmetry >= 4:
        images = images.flip(3)
        boxes = [torch.stack([side - b[:, 2], b[:, 1], side - b[:, 0], b[:, 3]], 1) for b in boxes]
    return images.contiguous(memory_format=torch.channels_last), boxes
