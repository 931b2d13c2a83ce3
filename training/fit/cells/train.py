"""Train the detector of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN

from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.datasets.laboratories.collection import DatasetEntry
from rbc_engine.training.fit.cells.draws import CellDraws
from rbc_engine.training.fit.cells.training_options import CellDetectorTraining
from rbc_engine.training.fit.detector import detector_optimizer
from rbc_engine.training.fit.steps.checkpoint import load_finished
from rbc_engine.training.fit.steps.devices import CPU
from rbc_engine.training.fit.steps.loop import averaged, train_steps
from rbc_engine.training.fit.steps.prefetch import Prefetch
from rbc_engine.training.networks.from_pack import begin_detector
from rbc_engine.training.networks.imagenet import TrunkWeights, fetch_imagenet, load_trunk
from rbc_engine.training.networks.models import IMAGE_STD, build_detector
from rbc_engine.training.networks.unknown_boxes import leave_out_unknown

__all__ = ["load_cell_detector", "train_cell_detector"]

Log = Callable[[str], None]


def train_cell_detector(
    fields: Sequence[CellField],
    entries: Sequence[DatasetEntry],
    *,
    kinds: Sequence[str],
    settings: DetectorSettings,
    training: CellDetectorTraining,
    checkpoint: Path,
    start: Path | Pack | None = None,
    trunk_weights: TrunkWeights = "scratch",
    device: torch.device = CPU,
    log: Log,
) -> FasterRCNN:
    """Train on the single cells of the fields, or resume from `checkpoint`; a class for each of
    `kinds`.

    entries: the laboratories of the fields, whose weights set how often each is drawn.
    start, trunk_weights: as in train_detector.

    Returns the averaged weights on the CPU. See train_steps for checkpoints, Ctrl-C and what is
    raised.
    """
    torch.manual_seed(training.seed)
    model = _new_detector(kinds, settings, training)
    if not checkpoint.exists() and start is None:
        state = fetch_imagenet(training.trunk, wanted=trunk_weights, log=log)
        if state is not None:
            std_rgb = [255 * IMAGE_STD] * 3
            load_trunk(model.backbone.body, state, mean_rgb=settings.mean_rgb, std_rgb=std_rgb)
    leave_out_unknown(model)
    model.transform.min_size = (training.canvas_px,)
    model.roi_heads.fg_bg_sampler.batch_size_per_image = training.regions_per_step
    model.to(device=device, memory_format=torch.channels_last)
    draws = CellDraws(fields, entries, kinds=kinds, settings=settings, training=training)
    model.train()

    with Prefetch(draws.batch, steps=training.steps) as batches:

        def loss_at(step: int) -> Tensor:
            images, targets = batches(step)
            images = images.to(device)
            targets = [{k: value.to(device) for k, value in t.items()} for t in targets]
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
    # Users of the detector have no use for the classes of leave_out_unknown.
    trained = _new_detector(kinds, settings, training)
    trained.load_state_dict(average.module.state_dict())
    return _for_fields(trained, settings)


def load_cell_detector(
    checkpoint: Path,
    *,
    kinds: Sequence[str],
    settings: DetectorSettings,
    training: CellDetectorTraining,
) -> FasterRCNN:
    """Return the detector of a finished training. Raises UsageError if there is none or it is not
    finished.
    """
    state = load_finished(checkpoint, steps=training.steps)
    average = averaged(_new_detector(kinds, settings, training))
    average.load_state_dict(state["average"])
    return _for_fields(cast(FasterRCNN, average.module), settings)


def _new_detector(
    kinds: Sequence[str], settings: DetectorSettings, training: CellDetectorTraining
) -> FasterRCNN:
    of_canvas = settings.model_copy(
        update={
            "proposals": training.proposals,
            "proposals_per_level": training.proposals_per_level,
        }
    )
    return build_detector(trunk=training.trunk, settings=of_canvas, classes=1 + len(kinds))


def _for_fields(model: FasterRCNN, settings: DetectorSettings) -> FasterRCNN:
    """Return the model in evaluation mode, for fields of the pack's own size."""
    model.transform.min_size = (settings.short_side_px,)
    model.rpn._pre_nms_top_n["testing"] = settings.proposals_per_level
    model.rpn._post_nms_top_n["testing"] = settings.proposals
    return model.eval()
