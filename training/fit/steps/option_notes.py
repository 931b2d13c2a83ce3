"""Handle options of a training: as given, and as recorded in its workspace."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["START", "as_tuples", "check_choice", "check_stages", "given", "noted_options"]

START = "start_sha256"
"""Key under which the workspace records whose weights a network started from."""

_SMALLEST_PATCH_PX = 16


def given(**options: Any) -> dict[str, Any]:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def check_choice(option: str, value: str | None, choices: Sequence[str]) -> None:
    """Raise UsageError if the value of an option is not one of its choices; None, not given, is
    always right.
    """
    if value is not None and value not in choices:
        raise UsageError(f"{option} must be one of {', '.join(choices)} (got {value!r})")


def check_stages(stages: Sequence[tuple[int, int]], *, batch: int) -> None:
    """Raise UsageError for a stage, (patch side in px, patches), that is too small to be trained
    on.
    """
    for patch_px, patches in stages:
        if patch_px < _SMALLEST_PATCH_PX or patches < batch:
            raise UsageError(
                f"--stages needs patches of at least {_SMALLEST_PATCH_PX} px, and at least {batch} "
                f"of them (got {patch_px}:{patches})"
            )


def noted_options(training: DataclassInstance, start: Path | Pack | None) -> dict[str, Any]:
    """Return all options of a training except how often a checkpoint is written, which does not
    change results.

    start: the checkpoint or the pack that it fine-tunes.
    """
    options = asdict(training)
    del options["checkpoint_every_s"]
    if start is not None:
        options[START] = (
            start.sha256
            if isinstance(start, Pack)
            else hashlib.sha256(start.read_bytes()).hexdigest()
        )
    return options


def as_tuples(value: Any) -> Any:
    """Return what JSON gave back, with tuples for its lists, as options hold them."""
    if isinstance(value, dict):
        return {name: as_tuples(item) for name, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value
