"""Checkpoints of a training: written whole or not at all, the one before kept, read without pickle."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbc_engine.errors import OutputError, UsageError

__all__ = ["load_checkpoint", "load_finished", "load_start", "refuse_divergence", "save_checkpoint"]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` beside `path`, then renames; what was at `path` becomes `path`.previous.

    Raises OutputError if the disk is full or not writable; the old checkpoint is then still there.
    """
    beside = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(_previous(path))
        beside.replace(path)
    except (OSError, RuntimeError) as error:
        beside.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write checkpoint {path}: {error}; free disk space and run the same command to resume"
        ) from error


def load_checkpoint(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The newest checkpoint that can be read, and a line that says which; (None, ...) if there is none."""
    damaged = ""
    for candidate in (path, _previous(path)):
        if not candidate.is_file():
            continue
        try:
            state: dict[str, Any] = torch.load(candidate, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a file cut short
            damaged += f"{candidate} is damaged ({type(error).__name__}); "
            continue
        return state, f"{damaged}resuming from {candidate}"
    return None, f"{damaged}no checkpoint yet"


def load_finished(path: Path, *, steps: int) -> dict[str, Any]:
    """The checkpoint of a training that took all its steps. Raises UsageError if there is none."""
    state, line = load_checkpoint(path)
    step = 0 if state is None else int(state["step"])
    if state is None or step < steps:
        raise UsageError(
            f"{path} is no finished training: it took {step} of {steps} steps ({line}); "
            f"run `rbc-engine train {path.stem}` to finish it"
        )
    return state


def load_start(path: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """The checkpoint of another training, to begin with. Raises UsageError if there is none that can be read."""
    state, line = load_checkpoint(path)
    if state is None:
        raise UsageError(
            f"{path} holds no weights to start from ({line}); name a training's folder"
        )
    log(f"beginning with the weights of {path}, step {state['step']}")
    return state


def refuse_divergence(loss: Tensor, norm: Tensor, *, step: int, checkpoint: Path) -> None:
    """Raises FloatingPointError if the loss or the norm of its gradient is not finite: no such step is taken."""
    if math.isfinite(loss.item()) and math.isfinite(norm.item()):
        return
    kept = (
        f"the weights before it are in {checkpoint}; resume from them, or begin"
        if checkpoint.exists()
        else "no checkpoint was due yet; begin"
    )
    raise FloatingPointError(
        f"the loss became {loss.item()} and its gradient's norm {norm.item()} in step {step}; {kept} "
        f"again in another --work with a lower learning rate"
    )


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")
