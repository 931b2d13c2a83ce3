"""Train a model pack from labelled smears: `rbc-engine train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rbc_engine.cli.terminal.train_options import (
    Batch,
    BestF1,
    Bf16,
    ClassifierTrunkOption,
    CollectionOption,
    Data,
    DetectorTrunkOption,
    Device,
    Format,
    FrozenNorms,
    LearningRate,
    MaxFalseShare,
    MeasuredBy,
    Name,
    Only,
    Out,
    Preset,
    Seed,
    Share,
    SoftWeight,
    Split,
    SplitSeed,
    Stages,
    StartFrom,
    Steps,
    TeacherOption,
    Threads,
    TrunkWeightsOption,
    Without,
    Work,
)
from rbc_engine.errors import RbcError, UsageError

if TYPE_CHECKING:
    from rbc_engine.training.collection_plan import CollectionPlan
    from rbc_engine.training.plan import TrainingPlan

__all__ = ["app", "parse_stages", "training_errors"]

EXIT_INTERRUPTED = 130

_NEEDED = ("torch", "torchvision", "sklearn", "scipy", "onnx", "onnxscript", "tomli_w")

app = typer.Typer(
    help="Train the detector and the classifier, and make a pack of them.", no_args_is_help=True
)


@app.command()
def detector(
    data: Data,
    work: Work,
    data_format: Format = "chula12",
    collection: CollectionOption = None,
    only: Only = None,
    without: Without = None,
    seed: Seed = 0,
    split_seed: SplitSeed = None,
    threads: Threads = 0,
    validation_share: Share = 0.22,
    split: Split = "smears",
    device: Device = "cpu",
    preset: Preset = "best",
    steps: Steps = None,
    detector_trunk: DetectorTrunkOption = None,
    trunk_weights: TrunkWeightsOption = "auto",
    bf16: Bf16 = False,
    start_from: StartFrom = None,
) -> None:
    """Train the detector of red-cell regions."""
    with training_errors():
        plan: TrainingPlan | CollectionPlan
        if collection is None:
            _check_alone(only=only, without=without, split_seed=split_seed)
            plan = _plan(data, work, data_format, seed, threads, validation_share, split, device)
        else:
            plan = _collection_plan(
                data,
                work,
                collection,
                only=only,
                without=without,
                seed=seed,
                split_seed=split_seed,
                threads=threads,
                validation_share=validation_share,
                split=split,
                device=device,
            )
        plan.train_detector(
            preset=preset,
            steps=steps,
            trunk=detector_trunk,
            trunk_weights=trunk_weights,
            bf16=bf16,
            start=start_from,
        )


@app.command()
def classifier(
    data: Data,
    work: Work,
    data_format: Format = "chula12",
    collection: CollectionOption = None,
    only: Only = None,
    without: Without = None,
    seed: Seed = 0,
    split_seed: SplitSeed = None,
    threads: Threads = 0,
    validation_share: Share = 0.22,
    split: Split = "smears",
    device: Device = "cpu",
    preset: Preset = "best",
    stages: Stages = None,
    classifier_trunk: ClassifierTrunkOption = None,
    trunk_weights: TrunkWeightsOption = "auto",
    learning_rate: LearningRate = None,
    batch: Batch = None,
    bf16: Bf16 = False,
    frozen_norms: FrozenNorms = False,
    start_from: StartFrom = None,
    teacher: TeacherOption = None,
    soft_weight: SoftWeight = None,
) -> None:
    """Train the classifier of cell types."""
    with training_errors():
        parsed = parse_stages(stages)
        options: dict[str, Any] = {
            "preset": preset,
            "stages": parsed,
            "trunk": classifier_trunk,
            "trunk_weights": trunk_weights,
            "learning_rate": learning_rate,
            "batch": batch,
            "bf16": bf16,
            "start": start_from,
        }
        if collection is None:
            _check_alone(
                only=only,
                without=without,
                split_seed=split_seed,
                frozen_norms=frozen_norms,
                teacher=teacher,
                soft_weight=soft_weight,
            )
            plan = _plan(data, work, data_format, seed, threads, validation_share, split, device)
            plan.train_classifier(**options)
            return
        laboratories = _collection_plan(
            data,
            work,
            collection,
            only=only,
            without=without,
            seed=seed,
            split_seed=split_seed,
            threads=threads,
            validation_share=validation_share,
            split=split,
            device=device,
        )
        laboratories.train_classifier(
            **options,
            frozen_norms=frozen_norms,
            teachers=[Path(folder) for folder in _names(teacher)],
            soft_weight=soft_weight,
        )


@app.command()
def pack(
    data: Data,
    work: Work,
    out: Out,
    data_format: Format = "chula12",
    seed: Seed = 0,
    threads: Threads = 0,
    validation_share: Share = 0.22,
    split: Split = "smears",
    max_false_share: MaxFalseShare = 0.03,
    best_f1: BestF1 = False,
    measured_by: MeasuredBy = None,
    name: Name = None,
) -> None:
    """Make a pack of the trained networks and measure it on held-out smears."""
    with training_errors():
        _check_out(out, name)
        plan = _plan(data, work, data_format, seed, threads, validation_share, split, "cpu")
        plan.make_pack(
            out,
            max_false_share=max_false_share,
            best_f1=best_f1,
            measured_by=measured_by,
            name=name,
        )


@app.command("all")
def everything(
    data: Data,
    work: Work,
    out: Out,
    data_format: Format = "chula12",
    seed: Seed = 0,
    threads: Threads = 0,
    validation_share: Share = 0.22,
    split: Split = "smears",
    device: Device = "cpu",
    preset: Preset = "best",
    steps: Steps = None,
    detector_trunk: DetectorTrunkOption = None,
    stages: Stages = None,
    classifier_trunk: ClassifierTrunkOption = None,
    trunk_weights: TrunkWeightsOption = "auto",
    bf16: Bf16 = False,
    max_false_share: MaxFalseShare = 0.03,
    name: Name = None,
) -> None:
    """Train detector and classifier, then make the pack."""
    with training_errors():
        _check_out(out, name)
        parsed = parse_stages(stages)
        plan = _plan(data, work, data_format, seed, threads, validation_share, split, device)
        plan.train_detector(
            preset=preset,
            steps=steps,
            trunk=detector_trunk,
            trunk_weights=trunk_weights,
            bf16=bf16,
        )
        plan.train_classifier(
            preset=preset,
            stages=parsed,
            trunk=classifier_trunk,
            trunk_weights=trunk_weights,
            bf16=bf16,
        )
        plan.make_pack(out, max_false_share=max_false_share, name=name)


@app.command()
def export(
    pack: Annotated[str, typer.Argument(help="Name of a shipped pack, or a pack's folder.")],
    check: Annotated[str, typer.Option(help="How to check it: torch-tensorrt.")],
) -> None:
    """Check an exported pack: compare its classifier, compiled by another compiler, with
    PyTorch's.
    """
    with training_errors():
        from rbc_engine.packs.pack import Pack, find_pack
        from rbc_engine.training.networks.export_check import check_export

        opened = Pack.open(find_pack(pack))
        difference = check_export(opened, check)
        print(
            f"{opened.name} {opened.manifest.version}: probabilities differ by {difference:.2g} at "
            "most"
        )


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
        _log("interrupted; repeat the command to resume from the last checkpoint in --work")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except FloatingPointError as error:
        raise RbcError(str(error)) from error


def _plan(
    data: Path,
    work: Path,
    data_format: str,
    seed: int,
    threads: int,
    validation_share: float,
    split: str,
    device: str,
) -> TrainingPlan:
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
        log=_log,
    )


def _collection_plan(
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
    from rbc_engine.training.collection_plan import CollectionPlan
    from rbc_engine.training.fit.steps.devices import training_device

    return CollectionPlan.open(
        data,
        work,
        collection=collection,
        only=_names(only),
        without=_names(without),
        seed=seed,
        split_seed=split_seed,
        threads=threads or len(os.sched_getaffinity(0)),
        validation_share=validation_share,
        split=split,
        device=training_device(device),
        log=_log,
    )


def _check_alone(**options: object) -> None:
    """Refuse options that need --collection."""
    if names := [
        f"--{name.replace('_', '-')}"
        for name, value in options.items()
        if value not in (None, False)
    ]:
        raise UsageError(f"{' and '.join(names)} need a --collection; name one, or omit them")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_out(out: Path, name: str | None) -> None:
    """Check --out before hours of training rather than after."""
    from rbc_engine.training.recipes import check_name

    if name is not None:
        check_name(name)
    if out.exists():
        raise UsageError(f"--out {out} exists; remove it, or name another folder")


def parse_stages(text: str | None) -> tuple[tuple[int, int], ...] | None:
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
