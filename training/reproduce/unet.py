"""Segment the cores of cells with a U-Net (Ronneberger et al. 2015), so that each touching cell is
a separate piece.

It is trained on clumps composed of single cells, whose places are known; labelled clumps have
centres at best.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.fit.augment import flip_and_turn, vary_colour
from rbc_engine.training.fit.region_set import RegionSet
from rbc_engine.types.arrays import Float32

__all__ = ["CANVAS_PX", "compose_clumps", "predict_cores", "train_unet"]

CANVAS_PX = 128
"""Side of the U-Net's input, in canvas px: four to five cells."""

_CELL_PX = 64
_MOST_CELLS = 5
# Of a cell's ellipse: cells overlap slightly, cores never do.
_NEAREST, _FARTHEST = 0.8, 1.02
_CORE = 0.72
_INNER, _OUTER = 1.02, 1.18
_BACKGROUND_PERCENTILE = 92
_WIDTHS = (16, 32, 64, 96)


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """Map float32 [N, 3, H, W], normalised, to logits [N, H, W] that a pixel is of a core; H and W
    multiples of 8.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS[:-1])
        self.down = nn.ModuleList(_Block(i, o) for i, o in zip(inputs, _WIDTHS, strict=True))
        self.up = nn.ModuleList(
            _Block(deep + skip, skip)
            for deep, skip in zip(_WIDTHS[:0:-1], _WIDTHS[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        skips: list[Tensor] = []
        x = images
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], dim=1))
        logits: Tensor = self.last(x)[:, 0]
        return logits


def compose_clumps(
    regions: RegionSet, count: int, *, settings: ClassifierSettings, rng: np.random.Generator
) -> tuple[Float32, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Compose chains of one to five single cells of one smear, each touching a previous one.

    regions: those of one cell, in fields of any scale.

    Returns canvases float32 [count, 3, 128, 128], normalised, cores bool [count, 128, 128], cells
    int64 [count].
    """
    groups = [np.flatnonzero(regions.groups == name) for name in np.unique(regions.groups)]
    numbers = rng.integers(1, _MOST_CELLS + 1, count)
    picks = [rng.choice(groups[rng.integers(len(groups))], number) for number in numbers]
    chosen = np.concatenate(picks)
    scale = regions.canvas_scales[chosen, None]
    centres = (regions.boxes[chosen, :2] + regions.boxes[chosen, 2:]) / 2
    windows = np.concatenate(
        [centres - _CELL_PX / 2 / scale, centres + _CELL_PX / 2 / scale], axis=1
    ).astype(np.float32)
    patches = regions.cut(chosen, windows, size_px=_CELL_PX, settings=settings, threads=1)
    halves = ((regions.boxes[chosen, 2:] - regions.boxes[chosen, :2]) * scale / 2).astype(
        np.float32
    )

    canvases = np.zeros((count, 3, CANVAS_PX, CANVAS_PX), np.float32)
    cores = np.zeros((count, CANVAS_PX, CANVAS_PX), bool)
    ends = np.cumsum(numbers)
    for index, (end, number) in enumerate(zip(ends, numbers, strict=True)):
        part = slice(end - number, end)
        canvases[index], cores[index] = _compose(patches[part], halves[part], rng)
    return canvases, cores, numbers


def _compose(
    patches: Float32, halves: Float32, rng: np.random.Generator
) -> tuple[Float32, npt.NDArray[np.bool_]]:
    levels = np.percentile(patches, _BACKGROUND_PERCENTILE, axis=(2, 3))[:, :, None, None]
    places = [np.zeros(2)]
    for number in range(1, len(patches)):
        before = int(rng.integers(number))
        angle = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        reach = sum(
            1 / np.sqrt(((direction / np.maximum(halves[i], 1)) ** 2).sum())
            for i in (before, number)
        )
        places.append(places[before] + direction * reach * rng.uniform(_NEAREST, _FARTHEST))
    at = np.array(places)
    at += CANVAS_PX / 2 - (at.max(axis=0) + at.min(axis=0)) / 2
    at = np.rint(at + rng.uniform(-6, 6, 2)).astype(int)
    at = at.clip(-_CELL_PX // 2, CANVAS_PX + _CELL_PX // 2)  # anything further out is not visible

    canvas = np.broadcast_to(levels[0], (3, CANVAS_PX, CANVAS_PX)).astype(np.float32)
    canvas = np.pad(canvas, ((0, 0), (_CELL_PX,) * 2, (_CELL_PX,) * 2), mode="edge")
    owner = np.zeros(canvas.shape[1:], np.int64)
    axis = np.arange(_CELL_PX) + 0.5 - _CELL_PX / 2
    for patch, level, half, (x, y) in zip(patches, levels, halves, at, strict=True):
        radius = np.hypot(axis[None] / half[0], axis[:, None] / half[1])
        weight = np.clip((_OUTER - radius) / (_OUTER - _INNER), 0, 1)
        left, top = x + _CELL_PX // 2, y + _CELL_PX // 2
        window = np.s_[top : top + _CELL_PX, left : left + _CELL_PX]
        below = canvas[:, window[0], window[1]]
        below += weight * (np.minimum(below, patch - level + levels[0]) - below)
        owner[window] += radius < _CORE
    inner = np.s_[_CELL_PX:-_CELL_PX, _CELL_PX:-_CELL_PX]
    # Where cores overlap there is a border too.
    return canvas[:, inner[0], inner[1]], owner[inner] == 1


def train_unet(
    regions: RegionSet,
    *,
    settings: ClassifierSettings,
    steps: int,
    batch: int,
    seed: int,
    log: Callable[[str], None],
) -> UNet:
    """Train the U-Net on regions of one cell each."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = UNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        canvases, cores, _ = compose_clumps(regions, batch, settings=settings, rng=rng)
        images = vary_colour(torch.from_numpy(canvases), generator=generator)
        both = torch.cat([images, torch.from_numpy(cores)[:, None].float()], dim=1)
        both = flip_and_turn(both, generator=generator)
        loss = functional.binary_cross_entropy_with_logits(model(both[:, :3]), both[:, 3])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            log(f"U-Net step {step + 1}/{steps}, loss {loss.item():.4f}")
    return model.eval()


@torch.inference_mode()
def predict_cores(model: UNet, canvases: Float32) -> npt.NDArray[np.bool_]:
    """Predict cores, bool [N, H, W], in canvases float32 [N, 3, H, W], normalised."""
    logits = [model(torch.from_numpy(canvases[i : i + 32])) for i in range(0, len(canvases), 32)]
    return np.asarray(torch.cat(logits).numpy() > 0)
