"""The steps of every training: pace, averaged weights, checkpoints, Ctrl-C, and a stop when it diverges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rbc_engine.training.fit.steps.checkpoint import (
    load_checkpoint,
    load_start,
    refuse_divergence,
    save_checkpoint,
)
from rbc_engine.training.fit.steps.interrupt import InterruptGuard
from rbc_engine.training.fit.steps.schedule import StepClock, one_cycle

__all__ = ["averaged", "train_steps"]

_LARGEST_GRADIENT_NORM = 5.0


def averaged(model: nn.Module, *, ema_decay: float = 0.0) -> AveragedModel:
    """A copy of the model that follows it as an exponential moving average; a decay of 0 follows at once.

    The first steps weigh more than ema_decay gives them, so that the weights that a training begins with, random or
    another training's, are soon forgotten (as tf.train.ExponentialMovingAverage does with num_updates).
    """

    def follow(mean: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        decay = min(ema_decay, (1 + int(updates)) / (10 + int(updates)))
        get_ema_multi_avg_fn(decay)(mean, current, updates)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)


def train_steps(
    name: str,
    model: nn.Module,
    *,
    loss_at: Callable[[int], Tensor],
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    steps: int,
    ema_decay: float,
    seed: int,
    checkpoint: Path,
    checkpoint_every_s: float,
    bf16: bool,
    start: Path | None,
    log: Callable[[str], None],
) -> AveragedModel:
    """Trains on the device that `model` is on, or goes on from `checkpoint`, and returns the averaged weights.

    loss_at: the loss of a step, which must depend on nothing but the weights, the step's number and torch's
        generator: the latter is seeded by (seed, step), so that a resumed training takes the same steps.
    learning_rate: the highest, see one_cycle.
    bf16: products and convolutions in bfloat16, all else in float32; faster on a processor that has it, and slower
        on one that has not. The steps differ from those in float32.
    start: another training's checkpoint, whose averaged weights this one begins with; None for the weights
        that `model` has.

    Ctrl-C ends it after the step in hand, with a checkpoint and KeyboardInterrupt. Raises FloatingPointError when the
    loss or a gradient is not finite; the last checkpoint is left as it is.
    """
    device = next(model.parameters()).device
    average = averaged(model, ema_decay=ema_decay)
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
        content: dict[str, Any] = {
            "step": step,
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        save_checkpoint(checkpoint, content)

    clock = StepClock(steps, first_step, checkpoint_every_s)
    with InterruptGuard() as interrupt:
        for step in range(first_step, steps):
            rate = learning_rate * one_cycle(step / steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(seed * 1_000_003 + step)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_at(step)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT_NORM)
            refuse_divergence(loss, norm, step=step, checkpoint=checkpoint)
            optimizer.step()
            average.update_parameters(model)
            if message := clock.tick(step, loss.item(), rate):
                log(f"{name} {message}")
            if interrupt.requested:
                save(step + 1)
                log(
                    f"stopped after step {step + 1}; run the same command again to resume from {checkpoint}"
                )
                raise KeyboardInterrupt
            if clock.checkpoint_due():
                save(step + 1)
    save(steps)
    return average
