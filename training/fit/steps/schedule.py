"""The pace of a training: learning rate, progress lines, and when to write a checkpoint."""

from __future__ import annotations

import math
import time

__all__ = ["StepClock", "one_cycle"]

_WARM_UP = 0.05


def one_cycle(done: float) -> float:
    """Factor on the learning rate after a share `done` (0..1) of all steps: linear warm-up, then a cosine to 0."""
    if done < _WARM_UP:
        return (done + 1e-3) / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


class StepClock:
    """Turns steps into progress lines, twice a minute at most, and says when a checkpoint is due."""

    def __init__(self, steps: int, first_step: int, checkpoint_every_s: float) -> None:
        self._steps = steps
        self._first_step = first_step
        self._every_s = checkpoint_every_s
        self._started = self._last_line = self._last_checkpoint = time.monotonic()
        self._loss: float | None = None

    def tick(self, step: int, loss: float, rate: float) -> str | None:
        """Counts a finished step; returns a line when half a minute has passed."""
        self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
        now = time.monotonic()
        if now - self._last_line < 30 and step + 1 < self._steps:
            return None
        self._last_line = now
        per_step_s = (now - self._started) / (step + 1 - self._first_step)
        left_min = per_step_s * (self._steps - step - 1) / 60
        return (
            f"step {step + 1}/{self._steps}, loss {self._loss:.4f}, learning rate {rate:.1e}, "
            f"{per_step_s:.2f} s a step, {left_min:.0f} min left"
        )

    def checkpoint_due(self) -> bool:
        if time.monotonic() - self._last_checkpoint < self._every_s:
            return False
        self._last_checkpoint = time.monotonic()
        return True
