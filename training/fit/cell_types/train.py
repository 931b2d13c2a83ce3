"""Train the classifier of cell types on several laboratories, with labels or teachers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.training.fit.cell_types.draws import TypeBatch, TypeDraws
from rbc_engine.training.fit.cell_types.teachers import Teachers
from rbc_engine.training.fit.cell_types.training_options import AUXILIARY, TypeTraining
from rbc_engine.training.fit.classifier import new_classifier, parameter_groups
from rbc_engine.training.fit.steps.checkpoint import load_finished
from rbc_engine.training.fit.steps.devices import CPU
from rbc_engine.training.fit.steps.loop import averaged, train_steps
from rbc_engine.training.fit.steps.prefetch import Prefetch
from rbc_engine.training.networks.from_pack import begin_classifier
from rbc_engine.training.networks.imagenet import TrunkWeights, fetch_imagenet, load_trunk
from rbc_engine.training.networks.models import Classifier

__all__ = ["load_type_classifier", "loss_of", "train_type_classifier", "without_auxiliary"]

Log = Callable[[str], None]


def train_type_classifier(
    draws: TypeDraws,
    *,
    types: int,
    settings: ClassifierSettings,
    training: TypeTraining,
    checkpoint: Path,
    teachers: Teachers | None = None,
    start: Path | Pack | None = None,
    trunk_weights: TrunkWeights = "scratch",
    device: torch.device = CPU,
    log: Log,
) -> Classifier:
    """Train trunk and heads, or resume from `checkpoint`.

    types: T, of the data. settings: of its patches. start, trunk_weights: as in train_classifier;
    from a pack only the trunk is taken.
    teachers: whose probabilities are targets in addition to the labels, see TypeTraining.

    Returns the averaged weights on the CPU, without the auxiliary outputs. See train_steps for what
    is raised.
    """
    torch.manual_seed(training.seed)
    model = new_classifier(types + len(AUXILIARY), training)
    if not checkpoint.exists() and start is None:
        state = fetch_imagenet(training.trunk, wanted=trunk_weights, log=log)
        if state is not None:
            load_trunk(model.trunk, state, mean_rgb=settings.mean_rgb, std_rgb=settings.std_rgb)
    model.to(device)
    model.train()

    with Prefetch(draws.batch, steps=training.steps) as batches:
        if isinstance(start, Pack) and not checkpoint.exists():

            def run(batch: int) -> None:
                model.feature_map(batches(training.steps + batch).patches.to(device))

            begin_classifier(model, start, same_types=False, run=run, log=log)
        if training.frozen_norms:
            _freeze_norms(model)

        def loss_at(step: int) -> Tensor:
            batch = batches(step)
            patches = batch.patches.to(device)
            _, logits = model(patches)
            answers = None if teachers is None else teachers(patches)
            return loss_of(logits, batch, answers, soft_weight=training.soft_weight)

        groups = parameter_groups(model, training.weight_decay)
        average = train_steps(
            "classifier",
            model,
            loss_at=loss_at,
            optimizer=torch.optim.AdamW(groups, lr=training.learning_rate, fused=True),
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
    return without_auxiliary(cast(Classifier, average.module).cpu())


def load_type_classifier(
    checkpoint: Path, *, types: int, training: TypeTraining, auxiliary: bool = False
) -> Classifier:
    """Return the averaged weights of a finished training. Raises UsageError if there are none or it
    is not finished.

    auxiliary: with all outputs of the training, as a teacher has them.
    """
    state = load_finished(checkpoint, steps=training.steps)
    average = averaged(new_classifier(types + len(AUXILIARY), training))
    average.load_state_dict(state["average"])
    model = cast(Classifier, average.module).eval()
    return model if auxiliary else without_auxiliary(model)


def loss_of(
    logits: Tensor, batch: TypeBatch, answers: Tensor | None, *, soft_weight: float
) -> Tensor:
    """Return the mean binary cross-entropy of a batch, a number.

    logits: float [B, outputs]. answers: of the teachers, float [B, outputs], 0..1; None if there
    are none.
    soft_weight: of the answers relative to a label; without a label they are the only target.
    """
    device = logits.device
    entropy = nn.functional.binary_cross_entropy_with_logits
    hard = entropy(logits, batch.wanted.to(device), reduction="none") * batch.weights.to(device)
    if answers is None:
        return hard.mean()
    soft = entropy(logits, answers, reduction="none")
    labelled = batch.labelled.to(device)[:, None]
    share = torch.where(labelled, soft_weight, 1.0)
    return ((1 - share) * hard + share * soft).mean()


def without_auxiliary(model: Classifier) -> Classifier:
    """Return a copy in evaluation mode whose heads lack the auxiliary outputs."""
    trimmed = copy.deepcopy(model)
    head = trimmed.head
    types = head.second.out_channels - len(AUXILIARY)
    hidden = head.first.out_features // head.second.out_channels
    first = nn.Linear(head.first.in_features, types * hidden)
    second = nn.Conv2d(types * hidden, types, 1, groups=types)
    with torch.no_grad():
        first.weight.copy_(head.first.weight[: types * hidden])
        first.bias.copy_(head.first.bias[: types * hidden])
        second.weight.copy_(head.second.weight[:types])
        assert head.second.bias is not None
        assert second.bias is not None
        second.bias.copy_(head.second.bias[:types])
    head.first, head.second = first, second
    return trimmed.eval()


def _freeze_norms(model: nn.Module) -> None:
    """Keep the statistics of the BatchNorms; their weights are trained."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
