"""Trains the trunk and the heads, end to end, on patches that the engine cuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rbc_engine.manifest import ClassifierSettings
from rbc_engine.training.augment import blur_some, flip_and_turn, vary_colour, vary_light
from rbc_engine.training.checkpoint import (
    load_checkpoint,
    load_finished,
    load_start,
    refuse_divergence,
    save_checkpoint,
)
from rbc_engine.training.clumps import ClumpMaker
from rbc_engine.training.interrupt import InterruptGuard
from rbc_engine.training.models import Classifier, ClassifierTrunk
from rbc_engine.training.patches import RegionSet
from rbc_engine.training.schedule import StepClock, one_cycle
from rbc_engine.types import Float32

__all__ = ["ClassifierTraining", "load_classifier", "predict", "train_classifier"]

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining:
    """How to train.

    stages: (patch side in px, patches drawn) one after the other; small patches first are cheaper.
    colour_strength: of the random changes of stain and light. Each type comes from few smears, so that the stain gives
        it away: the classifier must not learn it.
    clump_share: of the patches, those that are composed of two single cells.
    """

    trunk: ClassifierTrunk = "resnet50"
    stages: tuple[tuple[int, int], ...] = ((40, 51_200), (64, 73_600))
    batch: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    ema_decay: float = 0.998
    colour_strength: float = 2.0
    clump_share: float = 0.15
    seed: int = 0
    checkpoint_every_s: float = 240.0

    def patch_px(self, step: int) -> int:
        for size_px, patches in self.stages:
            steps = patches // self.batch
            if step < steps:
                return size_px
            step -= steps
        return self.stages[-1][0]

    @property
    def steps(self) -> int:
        return sum(patches // self.batch for _, patches in self.stages)


def train_classifier(
    regions: RegionSet,
    *,
    settings: ClassifierSettings,
    training: ClassifierTraining,
    checkpoint: Path,
    start: Path | None = None,
    log: Log,
) -> Classifier:
    """Trains, or goes on from `checkpoint`, and returns the averaged weights.

    start: another training's checkpoint, whose averaged weights this one begins with; None for random weights.

    Every step draws from a generator seeded by (seed, step), so that a resumed training takes the same steps.
    Ctrl-C ends it after the step in hand, with a checkpoint and KeyboardInterrupt.
    Raises FloatingPointError when the loss or a gradient is not finite; the last checkpoint is left as it is.
    """
    torch.manual_seed(training.seed)
    model = _new_classifier(regions.types.shape[1], training)
    average = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay), use_buffers=True
    )
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, training.weight_decay), lr=training.learning_rate, fused=True
    )
    state, line = load_checkpoint(checkpoint)
    log(line)
    first_step = 0
    if state is not None:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first_step = int(state["step"])
    elif start is not None:
        average.load_state_dict(load_start(start, log)["average"])
        model.load_state_dict(average.module.state_dict())
        average.n_averaged.zero_()

    def save(step: int) -> None:
        save_checkpoint(
            checkpoint,
            {
                "step": step,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
        )

    chances = _chances(regions.types)
    clumps = ClumpMaker(regions, chances)
    clock = StepClock(training.steps, first_step, training.checkpoint_every_s)
    model.train()
    with InterruptGuard() as interrupt:
        for step in range(first_step, training.steps):
            rate = training.learning_rate * one_cycle(step / training.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(training.seed * 1_000_003 + step)  # dropout draws by it
            patches, wanted = _draw(regions, chances, clumps, step, settings, training)
            _, logits = model(patches.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.binary_cross_entropy_with_logits(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            refuse_divergence(loss, norm, step=step, checkpoint=checkpoint)
            optimizer.step()
            average.update_parameters(model)
            if message := clock.tick(step, loss.item(), rate):
                log(f"classifier {message}")
            if interrupt.requested:
                save(step + 1)
                log(
                    f"stopped after step {step + 1}; run the same command again to resume from {checkpoint}"
                )
                raise KeyboardInterrupt
            if clock.checkpoint_due():
                save(step + 1)
    save(training.steps)
    return _trained(average)


def load_classifier(checkpoint: Path, *, types: int, training: ClassifierTraining) -> Classifier:
    """The averaged weights that a finished training left. Raises UsageError if there are none or it is not finished."""
    state = load_finished(checkpoint, steps=training.steps)
    average = AveragedModel(_new_classifier(types, training), use_buffers=True)
    average.load_state_dict(state["average"])
    return _trained(average)


def _trained(average: AveragedModel) -> Classifier:
    return cast(Classifier, average.module).eval()


@torch.inference_mode()
def predict(
    model: Classifier, regions: RegionSet, *, settings: ClassifierSettings, batch: int = 64
) -> Float32:
    """Probabilities float32 [R, T] of every region, in fp32."""
    model.eval()
    chunks = []
    for begin in range(0, len(regions), batch):
        chosen = np.arange(begin, min(begin + batch, len(regions)))
        patches = regions.cut(
            chosen,
            regions.windows(chosen, settings),
            size_px=settings.patch_px,
            settings=settings,
            threads=torch.get_num_threads(),
        )
        _, logits = model(torch.from_numpy(patches).contiguous(memory_format=torch.channels_last))
        chunks.append(logits.sigmoid().numpy())
    return np.concatenate(chunks).astype(np.float32)


def _new_classifier(types: int, training: ClassifierTraining) -> Classifier:
    model = Classifier(types=types, trunk=training.trunk, dropout=training.dropout)
    # Each residual branch starts as nothing, so that the deep trunk trains from scratch (Goyal et al. 2017).
    for module in model.trunk.modules():
        last_norm = getattr(module, "bn3", None) or getattr(module, "bn2", None)
        if last_norm is not None and hasattr(module, "downsample"):
            nn.init.zeros_(last_norm.weight)
    return model.to(memory_format=torch.channels_last)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Norms and biases are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _chances(types: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Chance of each region to be drawn: by 1 / sqrt(how many regions hold its rarest type)."""
    rarity = 1 / np.sqrt(np.maximum(types.sum(axis=0), 1))
    weight = (types * rarity).max(axis=1)
    return np.asarray(weight / weight.sum())


def _draw(
    regions: RegionSet,
    chances: npt.NDArray[np.float64],
    clumps: ClumpMaker,
    step: int,
    settings: ClassifierSettings,
    training: ClassifierTraining,
) -> tuple[Tensor, Tensor]:
    """The batch of one step: augmented patches float32 [B, 3, P, P] and wanted types float32 [B, T]."""
    rng = np.random.default_rng([training.seed, step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    composed = round(training.batch * training.clump_share)
    chosen = rng.choice(len(regions), training.batch - composed, p=chances)
    windows = regions.windows(chosen, settings)
    side = windows[:, 2:] - windows[:, :2]
    centre = (windows[:, 2:] + windows[:, :2]) / 2 + side * rng.uniform(-0.07, 0.07, side.shape)
    # Size tells macrocytes from microcytes, so it may vary only a little.
    half = (
        side
        / 2
        * np.exp(rng.uniform(-0.06, 0.06, (len(side), 1)))
        * np.exp(rng.uniform(-0.03, 0.03, side.shape))
    )
    patches = regions.cut(
        chosen,
        np.concatenate([centre - half, centre + half], axis=1).astype(np.float32),
        size_px=training.patch_px(step),
        settings=settings,
        threads=torch.get_num_threads(),
    )
    types = regions.types[chosen]
    if composed:
        clump_patches, clump_types = clumps.draw(
            composed,
            size_px=training.patch_px(step),
            settings=settings,
            threads=torch.get_num_threads(),
            rng=rng,
        )
        patches = np.concatenate([patches, clump_patches])
        types = np.concatenate([types, clump_types])
    offset = float(np.mean(np.divide(settings.mean_rgb, settings.std_rgb)))
    images = vary_light(torch.from_numpy(patches), generator=generator, offset=offset)
    images = blur_some(images, generator=generator, share=0.25, most_px=1.0)
    images = vary_colour(
        images, generator=generator, strength=training.colour_strength, offset=offset
    )
    return (
        flip_and_turn(images, generator=generator),
        torch.from_numpy(types.astype(np.float32)),
    )
