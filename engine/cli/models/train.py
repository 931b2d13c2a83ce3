"""Train a model pack from labelled smears: `rbc-engine train`."""

from __future__ import annotations

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
from rbc_engine.cli.terminal.train_plans import (
    check_alone,
    check_out,
    open_collection_plan,
    open_plan,
    parse_stages,
    split_names,
    training_errors,
)
from rbc_engine.errors import UsageError

if TYPE_CHECKING:
    from rbc_engine.training.collection_plan import CollectionPlan
    from rbc_engine.training.plan import TrainingPlan

__all__ = ["app"]

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
            check_alone(only=only, without=without, split_seed=split_seed)
            plan = open_plan(
                data, work, data_format, seed, threads, validation_share, split, device
            )
        else:
            plan = open_collection_plan(
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
            check_alone(
                only=only,
                without=without,
                split_seed=split_seed,
                frozen_norms=frozen_norms,
                teacher=teacher,
                soft_weight=soft_weight,
            )
            plan = open_plan(
                data, work, data_format, seed, threads, validation_share, split, device
            )
            plan.train_classifier(**options)
            return
        laboratories = open_collection_plan(
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
            teachers=[Path(folder) for folder in split_names(teacher)],
            soft_weight=soft_weight,
        )


@app.command(short_help="Make a pack of the trained networks.")
def pack(
    data: Data,
    work: Work,
    out: Out,
    data_format: Format = "chula12",
    collection: CollectionOption = None,
    only: Only = None,
    without: Without = None,
    seed: Seed = 0,
    split_seed: SplitSeed = None,
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
        check_out(out, name)
        if collection is not None:
            if best_f1 or measured_by is not None:
                raise UsageError("--best-f1 and --measured-by do not go with --collection")
            laboratories = open_collection_plan(
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
                device="cpu",
            )
            laboratories.make_pack(out, name=name)
            return
        check_alone(only=only, without=without, split_seed=split_seed)
        plan = open_plan(data, work, data_format, seed, threads, validation_share, split, "cpu")
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
        check_out(out, name)
        parsed = parse_stages(stages)
        plan = open_plan(data, work, data_format, seed, threads, validation_share, split, device)
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


@app.command(short_help="Check an exported pack against its training.")
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
