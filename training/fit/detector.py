"""Trains the Faster R-CNN on canvases that the engine's own resize makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torchvision.models.detection import FasterRCNN

from rbc_engine.devices.cpu import ops
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.fit.augment import (
    blur_some,
    flip_and_turn_boxes,
    jpeg,
    vary_colour,
    vary_light,
)
from rbc_engine.training.fit.steps.checkpoint import load_finished
from rbc_engine.training.fit.steps.devices import CPU
from rbc_engine.training.fit.steps.loop import averaged, train_steps
from rbc_engine.training.networks.from_pack import begin_detector
from rbc_engine.training.networks.imagenet import TrunkWeights, fetch_imagenet, load_trunk
from rbc_engine.training.networks.models import IMAGE_STD, DetectorTrunk, build_detector
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["DetectorTraining", "detector_optimizer", "load_detector", "train_detector"]

Log = Callable[[str], None]

# A box that a crop cuts stays a region if at least this share of it is still inside.
_VISIBLE = 0.3
_CELL_UM = 7.6
_USUAL_UM_PER_PX = 0.29


@dataclass(frozen=True, kw_only=True)
class DetectorTraining:
    """How to train.

    canvas_px: side of the square training canvas.
    scale_range: canvas px per frame px over the pack's own scale, drawn log-uniformly. Its upper end is what another
        laboratory's objective and camera may do: cells several times as large.
    momentum: of sgd.
    rendered_share: of the canvases, those that are rendered smears: other looks, and boxes that are exact.
    bf16: see train_steps.
    """

    trunk: DetectorTrunk = "resnet18"
    canvas_px: int = 256
    scale_range: tuple[float, float] = (0.6, 3.4)
    rendered_share: float = 0.2
    steps: int = 1400
    batch: int = 4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 8e-4
    momentum: float = 0.9
    weight_decay: float = 0.05
    regions_per_step: int = 128
    ema_decay: float = 0.995
    bf16: bool = False
    seed: int = 0
    checkpoint_every_s: float = 240.0


def train_detector(
    fields: Sequence[LabelledField],
    *,
    settings: DetectorSettings,
    training: DetectorTraining,
    checkpoint: Path,
    start: Path | Pack | None = None,
    trunk_weights: TrunkWeights = "scratch",
    device: torch.device = CPU,
    log: Log,
) -> FasterRCNN:
    """Trains on every region of the fields, or goes on from `checkpoint`; one class, a region of red cells.

    start: another training's checkpoint, whose averaged weights this one begins with, or a pack.
    trunk_weights: what the trunk begins with where there is neither a checkpoint nor a start.

    Returns the averaged weights on the CPU. See train_steps for checkpoints, Ctrl-C and what is raised.
    """
    torch.manual_seed(training.seed)
    model = build_detector(trunk=training.trunk, settings=settings)
    if not checkpoint.exists() and start is None:
        state = fetch_imagenet(training.trunk, wanted=trunk_weights, log=log)
        if state is not None:
            std_rgb = [255 * IMAGE_STD] * 3
            load_trunk(model.backbone.body, state, mean_rgb=settings.mean_rgb, std_rgb=std_rgb)
    model.transform.min_size = (training.canvas_px,)
    model.roi_heads.fg_bg_sampler.batch_size_per_image = training.regions_per_step
    model.to(device=device, memory_format=torch.channels_last)
    frames = [decode_image(field.path.read_bytes(), name=str(field.path)) for field in fields]
    boxes = [field.boxes for field in fields]
    model.train()

    def loss_at(step: int) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            images, targets = _draw(frames, boxes, step, settings, training)
        images = images.to(device)
        targets = [{name: value.to(device) for name, value in t.items()} for t in targets]
        loss: Tensor = sum(model(list(images), targets).values())
        return loss

    if isinstance(start, Pack) and not checkpoint.exists():
        begin_detector(model, start, run=lambda batch: loss_at(training.steps + batch), log=log)
    average = train_steps(
        "detector",
        model,
        loss_at=loss_at,
        optimizer=detector_optimizer(model, training),
        learning_rate=training.learning_rate,
        steps=training.steps,
        ema_decay=training.ema_decay,
        seed=training.seed,
        checkpoint=checkpoint,
        checkpoint_every_s=training.checkpoint_every_s,
        bf16=training.bf16,
        start=None if isinstance(start, Pack) else start,
        log=log,
    )
    return _trained(average, settings)


def detector_optimizer(model: FasterRCNN, training: DetectorTraining) -> torch.optim.Optimizer:
    """The optimizer that a training names, over all weights of the model."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
    return torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
        fused=True,
    )


def load_detector(
    checkpoint: Path, *, settings: DetectorSettings, training: DetectorTraining
) -> FasterRCNN:
    """The detector that a finished training left. Raises UsageError if there is none or it is not finished."""
    state = load_finished(checkpoint, steps=training.steps)
    average = averaged(build_detector(trunk=training.trunk, settings=settings))
    average.load_state_dict(state["average"])
    return _trained(average, settings)


def _trained(average: AveragedModel, settings: DetectorSettings) -> FasterRCNN:
    model = cast(FasterRCNN, average.module)
    model.transform.min_size = (settings.short_side_px,)
    return model.cpu().eval()


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
        if rng.random() < training.rendered_share:
            canvas, inside = _render(rng, settings, training)
        else:
            canvas, inside = _crop(frames[index], boxes[index], rng, settings, training)
        if rng.random() < 0.3:
            canvas = jpeg(canvas, quality=int(rng.integers(30, 96)))
        canvases.append(canvas)
        kept.append(torch.from_numpy(inside))
    images = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).float()
    mean = torch.tensor(settings.mean_rgb, dtype=torch.float32).view(1, 3, 1, 1)
    deviation = 40.0
    images = (images - mean) / deviation
    offset = float(mean.mean()) / deviation
    images = vary_light(images, generator=generator, strength=0.2, offset=offset)
    images = vary_colour(images, generator=generator, strength=1.8, offset=offset)
    images = ((images * deviation + mean) / 255).clamp(0, 1)
    images = blur_some(images, generator=generator, share=0.4, most_px=1.5)
    images, kept = flip_and_turn_boxes(images, kept, generator=generator)
    targets = [{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64)} for b in kept]
    return images, targets


def _render(
    rng: np.random.Generator, settings: DetectorSettings, training: DetectorTraining
) -> tuple[UInt8, Float32]:
    """A rendered smear of random stain, light and cell size as a canvas, and its regions, in canvas px."""
    side = training.canvas_px
    low, high = np.log(training.scale_range)
    um_per_px = settings.um_per_canvas_px or _USUAL_UM_PER_PX
    cell_px = _CELL_UM / um_per_px * float(np.exp(rng.uniform(low, high)))
    most = max(1, int(0.3 * (side / cell_px) ** 2))
    field = render_field(
        seed=int(rng.integers(2**31)),
        width=side,
        height=side,
        cells=int(rng.integers(1, most + 1)),
        cell_px=max(cell_px, 12.0),
        touching=float(rng.uniform(0, 0.5)),
    )
    return field.pixels, field.boxes[_area(field.boxes) >= 16]


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
        background_level=settings.background_level,
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
