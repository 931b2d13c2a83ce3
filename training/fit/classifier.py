"""Trains the trunk and the heads, end to end, on patches that the engine cuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.training.fit.augment import blur_some, flip_and_turn, vary_colour, vary_light
from rbc_engine.training.fit.clumps import ClumpMaker
from rbc_engine.training.fit.frozen_trunk import pooled_features
from rbc_engine.training.fit.region_set import RegionSet
from rbc_engine.training.fit.steps.checkpoint import load_finished
from rbc_engine.training.fit.steps.devices import CPU
from rbc_engine.training.fit.steps.loop import averaged, train_steps
from rbc_engine.training.networks.from_pack import begin_classifier
from rbc_engine.training.networks.imagenet import TrunkWeights, fetch_imagenet, load_trunk
from rbc_engine.training.networks.models import Classifier, ClassifierTrunk
from rbc_engine.types.arrays import Float32

__all__ = [
    "ClassifierTraining",
    "draw_chances",
    "load_classifier",
    "new_classifier",
    "parameter_groups",
    "predict",
    "train_classifier",
]

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining:
    """How to train.

    stages: (patch side in px, patches drawn) one after the other; small patches first are cheaper.
    colour_strength: of the random changes of stain and light. Each type comes from few smears, so that the stain gives
        it away: the classifier must not learn it.
    clump_share: of the patches, those that are composed of two single cells.
    frozen_trunk: train the heads only, by Adam, on features that are stored beside the checkpoint. The patches are then
        those of the last stage, as they are, each as likely as any other; weight_decay is an L2 penalty.
    bf16: see train_steps.
    """

    trunk: ClassifierTrunk = "resnet50"
    stages: tuple[tuple[int, int], ...] = ((40, 51_200), (64, 72_000), (80, 72_000))
    batch: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    ema_decay: float = 0.998
    colour_strength: float = 2.0
    clump_share: float = 0.15
    frozen_trunk: bool = False
    bf16: bool = False
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
    start: Path | Pack | None = None,
    types: tuple[str, ...] = (),
    trunk_weights: TrunkWeights = "scratch",
    device: torch.device = CPU,
    log: Log,
) -> Classifier:
    """Trains trunk and heads, or goes on from `checkpoint`; see train_steps, which also says what is raised.

    start: another training's checkpoint, whose averaged weights this one begins with, or a pack.
    types: names of the columns of the regions' types; with others than the pack's, its trunk alone is taken.
    trunk_weights: what the trunk begins with where there is neither a checkpoint nor a start.

    Returns the averaged weights on the CPU.
    """
    torch.manual_seed(training.seed)
    model = new_classifier(regions.types.shape[1], training)
    if not checkpoint.exists() and start is None:
        state = fetch_imagenet(training.trunk, wanted=trunk_weights, log=log)
        if state is not None:
            load_trunk(model.trunk, state, mean_rgb=settings.mean_rgb, std_rgb=settings.std_rgb)
    model.to(device)
    loss_at, optimizer = (_heads if training.frozen_trunk else _end_to_end)(
        model, regions, settings=settings, training=training, checkpoint=checkpoint, log=log
    )
    if isinstance(start, Pack) and not checkpoint.exists():

        def run(batch: int) -> None:
            rng = np.random.default_rng([training.seed, batch])
            chosen = rng.integers(len(regions), size=training.batch)
            patches = regions.patches(chosen, settings, threads=torch.get_num_threads())
            model.feature_map(torch.from_numpy(patches).to(device))

        begin_classifier(model, start, same_types=start.types == types, run=run, log=log)
    average = train_steps(
        "classifier",
        model,
        loss_at=loss_at,
        optimizer=optimizer,
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
    return _trained(average)


def _end_to_end(
    model: Classifier,
    regions: RegionSet,
    *,
    settings: ClassifierSettings,
    training: ClassifierTraining,
    checkpoint: Path,
    log: Log,
) -> tuple[Callable[[int], Tensor], torch.optim.Optimizer]:
    chances = draw_chances(regions, training)
    clumps = ClumpMaker(regions, chances)
    model.train()

    def loss_at(step: int) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            patches, wanted = _draw(regions, chances, clumps, step, settings, training)
        device = next(model.parameters()).device
        patches, wanted = patches.to(device), wanted.to(device)
        _, logits = model(patches.contiguous(memory_format=torch.channels_last))
        return nn.functional.binary_cross_entropy_with_logits(logits, wanted)

    groups = parameter_groups(model, training.weight_decay)
    return loss_at, torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def _heads(
    model: Classifier,
    regions: RegionSet,
    *,
    settings: ClassifierSettings,
    training: ClassifierTraining,
    checkpoint: Path,
    log: Log,
) -> tuple[Callable[[int], Tensor], torch.optim.Optimizer]:
    model.trunk.requires_grad_(False)
    device = next(model.parameters()).device
    types = torch.from_numpy(regions.types.astype(np.float32)).to(device)

    @lru_cache(maxsize=1)
    def features() -> Tensor:
        """Not before the first step: the trunk has its weights by then."""
        stored = checkpoint.with_name("features.npz")
        found = pooled_features(model, regions, settings=settings, stored=stored, log=log)
        model.head.train()
        return found.to(device)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([training.seed, step])
        chosen = torch.from_numpy(rng.integers(len(types), size=training.batch)).to(device)
        logits = model.head(features()[chosen])
        return nn.functional.binary_cross_entropy_with_logits(logits, types[chosen])

    optimizer = torch.optim.Adam(
        model.head.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    return loss_at, optimizer


def load_classifier(checkpoint: Path, *, types: int, training: ClassifierTraining) -> Classifier:
    """The averaged weights that a finished training left. Raises UsageError if there are none or it is not finished."""
    state = load_finished(checkpoint, steps=training.steps)
    average = averaged(new_classifier(types, training))
    average.load_state_dict(state["average"])
    return _trained(average)


def _trained(average: AveragedModel) -> Classifier:
    return cast(Classifier, average.module).cpu().eval()


@torch.inference_mode()
def predict(
    model: Classifier, regions: RegionSet, *, settings: ClassifierSettings, batch: int = 64
) -> Float32:
    """Probabilities float32 [R, T] of every region, in fp32."""
    model.eval()
    chunks = []
    for begin in range(0, len(regions), batch):
        chosen = np.arange(begin, min(begin + batch, len(regions)))
        patches = regions.patches(chosen, settings, threads=torch.get_num_threads())
        _, logits = model(torch.from_numpy(patches).contiguous(memory_format=torch.channels_last))
        chunks.append(logits.sigmoid().numpy())
    return np.concatenate(chunks).astype(np.float32)


def new_classifier(types: int, training: ClassifierTraining) -> Classifier:
    """A classifier with the random weights that a training begins with."""
    model = Classifier(types=types, trunk=training.trunk, dropout=training.dropout)
    # Each residual branch starts as nothing, so that the deep trunk trains from scratch (Goyal et al. 2017).
    for module in model.trunk.modules():
        last_norm = getattr(module, "bn3", None) or getattr(module, "bn2", None)
        if last_norm is not None and hasattr(module, "downsample"):
            nn.init.zeros_(last_norm.weight)
    return model.to(memory_format=torch.channels_last)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The weights of a model as an optimizer takes them: norms and biases are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def draw_chances(regions: RegionSet, training: ClassifierTraining) -> npt.NDArray[np.float64]:
    """float64 [R], sum 1: the chance of each region to be drawn in a training; all alike where the trunk is frozen. Else

    By square roots: a type with four times the regions is drawn twice as often, and of a type's smears so is one with
    four times the regions. Otherwise a type is learnt by the look of its largest smear.
    """
    if training.frozen_trunk:
        return np.full(len(regions), 1 / len(regions))
    weight = np.zeros(len(regions))
    _, smear = np.unique(regions.groups, return_inverse=True)
    for held in regions.types.T:
        in_smear = np.bincount(smear[held], minlength=smear.max() + 1)
        share = np.sqrt(held.sum()) / np.maximum(np.sqrt(in_smear).sum(), 1)
        of_type = share / np.sqrt(np.maximum(in_smear, 1))
        weight = np.maximum(weight, np.where(held, of_type[smear], 0.0))
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
