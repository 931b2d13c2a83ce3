"""Trains the Faster R-CNN on canvases that the engine's own resize makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.transforms.v2.functional import gaussian_blur

from rbc_engine import ops
from rbc_engine.manifest import DetectorSettings
from rbc_engine.sources.decode import decode_image
from rbc_engine.training.augment import flip_and_turn_boxes, vary_colour
from rbc_engine.training.checkpoint import load_checkpoint, load_finished, save_checkpoint
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.interrupt import InterruptGuard
from rbc_engine.training.models import DetectorTrunk, build_detector
from rbc_engine.training.schedule import StepClock, one_cycle
from rbc_engine.types import Float32, UInt8

__all__ = ["DetectorTraining", "load_detector", "train_detector"]

Log = Callable[[str], None]

# A box that a crop cuts stays a region if at least this share of it is still inside.
_VISIBLE = 0.3


@dataclass(frozen=True, kw_only=True)
class DetectorTraining:
    """How to train.

    canvas_px: side of the square training canvas.
    scale_range: canvas px per frame px over the pack's own scale, drawn log-uniformly.
    """

    trunk: DetectorTrunk = "resnet18"
    canvas_px: int = 256
    scale_range: tuple[float, float] = (0.6, 2.2)
    steps: int = 700
    batch: int = 4
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    regions_per_step: int = 128
    seed: int = 0
    checkpoint_every_s: float = 240.0


def train_detector(
    fields: Sequence[LabelledField],
    *,
    settings: DetectorSettings,
    training: DetectorTraining,
    checkpoint: Path,
    log: Log,
) -> FasterRCNN:
    """Trains, or goes on from `checkpoint`, on every region of the fields; one class, a region of red cells.

    Every step draws from a generator seeded by (seed, step), so that a resumed training takes the same steps.
    Ctrl-C ends it after the step in hand, with a checkpoint and KeyboardInterrupt.
    Raises FloatingPointError when the loss is not finite; the checkpoint then holds the last good weights.
    """
    torch.manual_seed(training.seed)
    model = build_detector(trunk=training.trunk, settings=settings)
    model.transform.min_size = (training.canvas_px,)
    model.roi_heads.fg_bg_sampler.batch_size_per_image = training.regions_per_step
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
        fused=True,
    )
    state, line = load_checkpoint(checkpoint)
    log(line)
    first_step = 0
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_step = int(state["step"])

    def save(step: int) -> None:
        save_checkpoint(
            checkpoint,
            {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()},
        )

    frames = [decode_image(field.path.read_bytes(), name=str(field.path)) for field in fields]
    boxes = [field.boxes for field in fields]
    clock = StepClock(training.steps, first_step, training.checkpoint_every_s)
    model.train()
    with InterruptGuard() as interrupt:
        for step in range(first_step, training.steps):
            rate = training.learning_rate * one_cycle(step / training.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(training.seed * 1_000_003 + step)  # torchvision samples anchors by it
            images, targets = _draw(frames, boxes, step, settings, training)
            loss: Tensor = sum(model(list(images), targets).values())
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"the loss became {loss.item()} in step {step}; the weights before it are in {checkpoint}; "
                    f"lower the learning rate ({training.learning_rate}) and resume"
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            if message := clock.tick(step, loss.item(), rate):
                log(f"detector {message}")
            if interrupt.requested:
                save(step + 1)
                log(
                    f"stopped after step {step + 1}; run the same command again to resume from {checkpoint}"
                )
                raise KeyboardInterrupt
            if clock.checkpoint_due():
                save(step + 1)
    save(training.steps)
    model.transform.min_size = (settings.short_side_px,)
    return model.eval()


def load_detector(
    checkpoint: Path, *, settings: DetectorSettings, training: DetectorTraining
) -> FasterRCNN:
    """The detector that a finished training left. Raises UsageError if there is none or it is not finished."""
    state = load_finished(checkpoint, steps=training.steps)
    model = build_detector(trunk=training.trunk, settings=settings)
    model.load_state_dict(state["model"])
    return model.eval()


def _draw(
    frames: Sequence[UInt8],
    boxes: Sequence[Float32],
    step: int,
    settings: DetectorSettings,
    training: DetectorTraining,
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """The batch of one step: images float32 [B, 3, canvas, canvas], 0..1, and torchvision's targets."""
    rng = np.random.default_rng([training.seed, step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    canvases, kept = [], []
    for index in rng.choice(len(frames), training.batch, replace=False):
        canvas, inside = _crop(frames[index], boxes[index], rng, settings, training)
        canvases.append(canvas)
        kept.append(torch.from_numpy(inside))
    images = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).float()
    mean = torch.tensor(settings.fill_rgb, dtype=torch.float32).view(1, 3, 1, 1)
    deviation = 40.0
    images = (images - mean) / deviation
    images = vary_colour(
        images, generator=generator, strength=1.6, offset=float(mean.mean()) / deviation
    )
    images = ((images * deviation + mean) / 255).clamp(0, 1)
    if rng.random() < 0.4:
        images = gaussian_blur(images, [5, 5], [float(rng.uniform(0.3, 1.5))])
    images, kept = flip_and_turn_boxes(images, kept, generator=generator)
    targets = [{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64)} for b in kept]
    return images, targets


def _crop(
    frame: UInt8,
    boxes: Float32,
    rng: np.random.Generator,
    settings: DetectorSettings,
    training: DetectorTraining,
) -> tuple[UInt8, Float32]:
    """A random part of a frame at a random scale, as a square canvas, and the boxes in it, in canvas px."""
    height, width = frame.shape[:2]
    low, high = np.log(training.scale_range)
    scale = settings.short_side_px / min(height, width) * float(np.exp(rng.uniform(low, high)))
    side = round(training.canvas_px / scale)
    crop_h, crop_w = min(side, height), min(side, width)
    top, left = int(rng.integers(height - crop_h + 1)), int(rng.integers(width - crop_w + 1))
    crop = frame[top : top + crop_h, left : left + crop_w]
    resized = np.array(
        [[min(round(n * scale), training.canvas_px) for n in (crop_h, crop_w)]], np.int32
    )
    canvas = ops.resize_letterbox(
        [crop],
        resized,
        canvas_hw=(training.canvas_px, training.canvas_px),
        fill_rgb=settings.fill_rgb,
        threads=torch.get_num_threads(),
    )[0]
    moved = boxes - np.array([left, top, left, top], np.float32)
    inside = np.clip(moved, 0, np.array([crop_w, crop_h, crop_w, crop_h], np.float32))
    share = _area(inside) / _area(boxes)
    factors = resized[0, ::-1] / np.array([crop_w, crop_h])
    scaled = (inside * np.tile(factors, 2)).astype(np.float32)
    return canvas, scaled[(share >= _VISIBLE) & (_area(scaled) >= 16)]


def _area(boxes: Float32) -> npt.NDArray[np.float32]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
