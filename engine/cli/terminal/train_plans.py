"""Turn the options of `rbc-engine train` and `reproduce` into a plan of a training."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rbc_engine.errors import RbcError, UsageError

if TYPE_CHECKING:
    from rbc_engine.training.collection_plan import CollectionPlan
    from rbc_engine.training.plan import TrainingPlan

__all__ = [
    "check_alone",
    "check_out",
    "open_collection_plan",
    "open_plan",
    "parse_stages",
    "split_names",
    "training_errors",
]

EXIT_INTERRUPTED = 130

_NEEDED = ("torch", "torchvision", "sklearn", "scipy", "onnx", "onnxscript", "tomli_w")


@contextmanager
def training_errors() -> Iterator[None]:
    """Check that the libraries are there; turn Ctrl-C and a diverged loss into a message and an
    exit code.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"training needs {', '.join(missing)}, which is not installed; pip install "
            "'rbc-engine[train]'"
        )
    try:
        yield
    except KeyboardInterrupt:
        log_line("interrupted; repeat the command to resume from the last checkpoint in --work")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except FloatingPointError as error:
        raise RbcError(str(error)) from error


def open_plan(
    data: Path,
    work: Path,
    data_format: str,
    seed: int,
    threads: int,
    validation_share: float,
    split: str,
    device: str,
) -> TrainingPlan:
    """Open a training on one dataset. threads: 0 for all cores."""
    from rbc_engine.training.fit.steps.devices import training_device
    from rbc_engine.training.plan import TrainingPlan

    return TrainingPlan.open(
        data,
        work,
        data_format=data_format,
        seed=seed,
        threads=threads or len(os.sched_getaffinity(0)),
        validation_share=validation_share,
        split=split,
        device=training_device(device),
        log=log_line,
    )


def open_collection_plan(
    data: Path,
    work: Path,
    collection: str,
    *,
    only: str | None,
    without: str | None,
    seed: int,
    split_seed: int | None,
    threads: int,
    validation_share: float,
    split: str,
    device: str,
) -> CollectionPlan:
    """Open a training on a collection. only, without: names, separated by commas. threads: 0 for
    all cores.
    """
    from rbc_engine.training.collection_plan import CollectionPlan
    from rbc_engine.training.fit.steps.devices import training_device

    return CollectionPlan.open(
        data,
        work,
        collection=collection,
        only=split_names(only),
        without=split_names(without),
        seed=seed,
        split_seed=split_seed,
        threads=threads or len(os.sched_getaffinity(0)),
        validation_share=validation_share,
        split=split,
        device=training_device(device),
        log=log_line,
    )


def check_alone(**options: object) -> None:
    """Refuse options that need --collection."""
    if names := [
        f"--{name.replace('_', '-')}"
        for name, value in options.items()
        if value not in (None, False)
    ]:
        raise UsageError(f"{' and '.join(names)} need a --collection; name one, or omit them")


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names in a text that commas separate."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def log_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def check_out(out: Path, name: str | None) -> None:
    """Check --out before hours of training rather than after."""
    from rbc_engine.training.recipes import check_name

    if name is not None:
        check_name(name)
    if out.exists():
        raise UsageError(f"--out {out} exists; remove it, or name another folder")


def parse_stages(text: str | None) -> tuple[tuple[int, int], ...] | None:
    """Return patch sizes and patches of `--stages`."""
    if text is None:
        return None
    stages = []
    for part in text.split(","):
        patch_px, _, patches = part.partition(":")
        if not (patch_px.isdecimal() and patches.isdecimal()):
            raise UsageError(
                "--stages must read PATCH_PX:PATCHES,PATCH_PX:PATCHES..., e.g. 40:64000,64:32000 "
                f"(got {part!r})"
            )
        stages.append((int(patch_px), int(patches)))
    return tuple(stages)
