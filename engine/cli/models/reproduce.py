"""Reproduce the tables and figures of Qiu et al. 2019 on public data: `rbc-engine reproduce`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.cli.terminal.train_plans import parse_stages, training_errors
from rbc_engine.errors import UsageError

if TYPE_CHECKING:
    from rbc_engine.training.datasets.base import Dataset
    from rbc_engine.training.recipes import PackRecipe

__all__ = ["app"]

app = typer.Typer(
    help="Reproduce the tables and figures of Qiu et al. 2019 on your own data.",
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Option(help="Folder of the labelled images.")]
Work = Annotated[
    Path, typer.Option(help="Folder for trained networks; finished ones are used again.")
]
Out = Annotated[Path, typer.Option(help="Folder for the table or figure; created if missing.")]
Format = Annotated[str, typer.Option("--format", help="What --data holds, e.g. chula12.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the folds, trainings and intervals.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 for all cores.")]
Folds = Annotated[int, typer.Option(min=2, help="Number of folds of the smears.")]
Resamples = Annotated[int, typer.Option(min=100, help="Resamples of the smears for the intervals.")]
Bf16 = Annotated[
    bool,
    typer.Option("--bf16", help="Compute in bfloat16: faster on a processor that supports it."),
]
TrunkWeightsOption = Annotated[
    str,
    typer.Option("--trunk-weights", help="Initial weights of every trunk: scratch or imagenet."),
]


@app.command(short_help="Table 1: Models A, A* and B.")
@training_errors()
def table1(
    data: Data,
    work: Work,
    out: Out,
    data_format: Format = "chula12",
    folds: Folds = 5,
    only: Annotated[
        int | None, typer.Option(help="Train only this fold, from 0; all by default.")
    ] = None,
    stages: Annotated[
        str, typer.Option(help="Stages of each model, PATCH_PX:PATCHES each, separated by commas.")
    ] = "40:51200,64:73600",
    trunk: Annotated[str, typer.Option(help="resnet18, resnet34 or resnet50.")] = "resnet50",
    trunk_weights: TrunkWeightsOption = "scratch",
    bf16: Bf16 = False,
    seed: Seed = 0,
    threads: Threads = 0,
    resamples: Resamples = 1000,
) -> None:
    """Reproduce Table 1: Models A, A* and B, trained with and without regions of several cells, and
    the caller.
    """
    from typing import cast

    from rbc_engine.training.fit.classifier import ClassifierTraining
    from rbc_engine.training.networks.imagenet import TrunkWeights
    from rbc_engine.training.networks.models import ClassifierTrunk
    from rbc_engine.training.reproduce.fold_networks import (
        MODELS,
        CrossValidation,
        finished_folds,
        load_held_out,
    )
    from rbc_engine.training.reproduce.table1 import measure_table1, write_table1

    parsed = parse_stages(stages) or ()
    dataset, recipe = _read(data, data_format, threads)
    validation = CrossValidation.open(
        dataset,
        data,
        work,
        recipe=recipe,
        folds=folds,
        training=ClassifierTraining(
            stages=parsed, trunk=cast(ClassifierTrunk, trunk), bf16=bf16, seed=seed
        ),
        trunk_weights=cast(TrunkWeights, trunk_weights),
        log=_log,
    )
    for fold in range(folds) if only is None else (only,):
        for model in MODELS:
            validation.run(fold, model)
    finished = finished_folds(work, folds=folds)
    held_out = {model: load_held_out(work, folds=finished, model=model) for model in MODELS}
    table = measure_table1(validation, held_out, finished=finished, resamples=resamples)
    write_table1(out, table)
    _log(f"table1.md and table1.json in {out}")


@app.command(short_help="Figure 6: predictions of Model A.")
@training_errors()
def figure6(
    data: Data,
    work: Work,
    out: Out,
    folds: Folds = 5,
    data_format: Format = "chula12",
    count: Annotated[int, typer.Option(min=1, max=64, help="Clumps to show.")] = 12,
    seed: Seed = 0,
    threads: Threads = 0,
) -> None:
    """Show Figure 6: predictions of Model A of the table1 in --work for held-out clumps."""
    from rbc_engine.training.reproduce.figures.clump_figure import choose_clumps, write_clump_figure
    from rbc_engine.training.reproduce.fold_networks import finished_folds, load_held_out

    finished = finished_folds(work, folds=folds)
    if not finished:
        raise UsageError(
            f"--work {work} holds no finished fold of table1; run `rbc-engine reproduce table1` "
            "with it first"
        )
    dataset, _ = _read(data, data_format, threads)
    held_out = load_held_out(work, folds=finished, model="A")
    figure = choose_clumps(held_out, dataset.types, count=count, seed=seed)
    write_clump_figure(out, figure, data=data)
    _log(f"figure6.md, figure6.json and figure6.png in {out}")


@app.command(short_help="Figure 7: a field, coloured by result.")
@training_errors()
def figure7(
    data: Data,
    out: Out,
    field: Annotated[str, typer.Option(help="File name of a labelled image of --data.")],
    pack: options.Pack = "chula12",
    data_format: Format = "chula12",
    device: options.Device = "auto",
    threads: Threads = 0,
) -> None:
    """Show Figure 7: a field, coloured by the result for each region."""
    from rbc_engine.engine import Engine
    from rbc_engine.training.datasets.formats.table import load_dataset
    from rbc_engine.training.reproduce.figures.field_figure import find_field, show_field

    _log(f"reading {data}")
    dataset = load_dataset(data, data_format=data_format, threads=threads or None)
    labelled = find_field(dataset, field)
    with Engine.open(pack, device=device) as engine:
        show_field(out, dataset, labelled, engine=engine)
    _log(f"figure7.md, figure7.json and figure7.png in {out}")


@app.command(short_help="Figure 8: held-out clumps, cut into cells.")
@training_errors()
def figure8(
    data: Data,
    out: Out,
    data_format: Format = "chula12",
    folds: Folds = 5,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of the U-Net.")] = 400,
    seed: Seed = 0,
    threads: Threads = 0,
    resamples: Resamples = 1000,
) -> None:
    """Show Figure 8: held-out clumps of the first fold, cut into cells by watershed and by a
    U-Net.
    """
    from rbc_engine.training.fit.region_set import load_regions
    from rbc_engine.training.reproduce.folds import deal_groups
    from rbc_engine.training.reproduce.separation import compare_separation, write_separation

    dataset, recipe = _read(data, data_format, threads)
    result, tiles = compare_separation(
        load_regions(dataset.fields, short_side_px=recipe.detector.short_side_px),
        dataset=dataset.name,
        held_out=deal_groups(dataset, folds=folds, seed=seed)[0],
        settings=recipe.classifier,
        unet_steps=steps,
        seed=seed,
        resamples=resamples,
        log=_log,
    )
    write_separation(out, result, tiles)
    _log(f"figure8.md, figure8.json and figure8.png in {out}")


@app.command(short_help="Compare detectors with each trunk.")
@training_errors()
def detectors(
    data: Data,
    work: Work,
    out: Out,
    data_format: Format = "chula12",
    folds: Folds = 5,
    trunks: Annotated[
        str, typer.Option(help="resnet18, resnet50, resnet101, separated by commas.")
    ] = "resnet18,resnet50,resnet101",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each detector.")] = 1200,
    trunk_weights: TrunkWeightsOption = "scratch",
    bf16: Bf16 = False,
    seed: Seed = 0,
    threads: Threads = 0,
    resamples: Resamples = 1000,
) -> None:
    """Compare detectors with each trunk: average precision on the first fold's smears, and images
    per second.
    """
    from typing import cast, get_args

    from rbc_engine.training.fit.detector import DetectorTraining
    from rbc_engine.training.networks.imagenet import TrunkWeights
    from rbc_engine.training.networks.models import DetectorTrunk
    from rbc_engine.training.reproduce.detectors import compare_detectors, write_detectors
    from rbc_engine.training.reproduce.fold_networks import check_trunk_weights
    from rbc_engine.training.reproduce.folds import deal_groups

    names = [name.strip() for name in trunks.split(",")]
    if unknown := [name for name in names if name not in get_args(DetectorTrunk)]:
        raise UsageError(
            f"--trunks must be of {', '.join(get_args(DetectorTrunk))} (got {', '.join(unknown)})"
        )
    check_trunk_weights(trunk_weights)
    dataset, recipe = _read(data, data_format, threads)
    table = compare_detectors(
        dataset,
        held_out=deal_groups(dataset, folds=folds, seed=seed)[0],
        trunks=cast("list[DetectorTrunk]", names),
        settings=recipe.detector,
        training=DetectorTraining(steps=steps, bf16=bf16, seed=seed),
        trunk_weights=cast(TrunkWeights, trunk_weights),
        work=work,
        resamples=resamples,
        log=_log,
    )
    write_detectors(out, table)
    _log(f"detectors.md and detectors.json in {out}")


@app.command("patch-sizes", short_help="Compare patch sizes of the classifier.")
@training_errors()
def patch_sizes(
    data: Data,
    work: Work,
    out: Out,
    data_format: Format = "chula12",
    sizes: Annotated[str, typer.Option(help="Sides in px, separated by commas.")] = (
        "80,96,112,128,160,224"
    ),
    patches: Annotated[int, typer.Option(min=32, help="Training patches of each size.")] = 64000,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1.0)] = 6e-4,
    start_from: Annotated[
        Path | None,
        typer.Option(help="--work of `train classifier`, whose weights all of them start from."),
    ] = None,
    validation_share: Annotated[float, typer.Option(min=0.01, max=0.9)] = 0.22,
    bf16: Bf16 = False,
    seed: Seed = 0,
    threads: Threads = 0,
) -> None:
    """Compare patch sizes of the classifier: accuracy and cost of each."""
    from rbc_engine.training.plan import TrainingPlan
    from rbc_engine.training.reproduce.patch_sizes import compare_patch_sizes, write_patch_sizes

    parts = [part.strip() for part in sizes.split(",")]
    if not all(part.isdecimal() and 16 <= int(part) <= 512 for part in parts):
        raise UsageError(f"--sizes must be sides of 16 to 512 px, e.g. 80,96,128 (got {sizes!r})")

    def open_plan(folder: Path) -> TrainingPlan:
        return TrainingPlan.open(
            data,
            folder,
            data_format=data_format,
            seed=seed,
            threads=threads or len(os.sched_getaffinity(0)),
            validation_share=validation_share,
            log=_log,
        )

    table = compare_patch_sizes(
        open_plan,
        [int(part) for part in parts],
        patches=patches,
        learning_rate=learning_rate,
        bf16=bf16,
        start=start_from,
        work=work,
        log=_log,
    )
    write_patch_sizes(out, table)
    _log(f"patch_sizes.md and patch_sizes.json in {out}")


@app.command(short_help="Robustness to other microscopes.")
@training_errors()
def robustness(
    data: Data,
    out: Out,
    pack: options.Pack = "chula12",
    data_format: Format = "chula12",
    groups: options.Groups = None,
    held_out: options.HeldOut = False,
    magnifications: Annotated[
        str, typer.Option(help="Enlargements, 1 to 8, separated by commas.")
    ] = "1,2,3",
    looks: Annotated[str, typer.Option(help="Looks, separated by commas; all by default.")] = "",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    seed: Seed = 0,
    threads: Threads = 0,
) -> None:
    """Measure robustness to other microscopes, simulated with your fields enlarged, recoloured and
    blurred.
    """
    from rbc_engine.engine import Engine
    from rbc_engine.training.datasets.evaluation_fields import choose_fields
    from rbc_engine.training.datasets.formats.table import load_dataset
    from rbc_engine.training.reproduce.robustness import (
        LOOKS,
        measure_robustness,
        write_robustness,
    )

    try:
        times = [float(part) for part in options.names(magnifications)]
    except ValueError:
        raise UsageError(
            f"--magnifications must be numbers, e.g. 1,2,3 (got {magnifications!r})"
        ) from None
    _log(f"reading {data}")
    dataset = load_dataset(data, data_format=data_format, threads=threads or None)
    with Engine.open(pack, device=device, precision=precision) as engine:
        fields = choose_fields(
            engine.pack,
            dataset,
            groups=None if groups is None else options.names(groups),
            held_out=held_out,
        )
        table = measure_robustness(
            engine,
            dataset,
            fields,
            magnifications=times,
            looks=options.names(looks) or list(LOOKS),
            seed=seed,
            log=_log,
        )
    write_robustness(out, table)
    _log(f"robustness.md and robustness.json in {out}")


def _read(data: Path, data_format: str, threads: int) -> tuple[Dataset, PackRecipe]:
    """Read the dataset and its recipe, and set torch's threads for the whole process."""
    import torch

    from rbc_engine.training.datasets.formats.table import load_dataset
    from rbc_engine.training.recipes import recipe_for

    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    _log(f"reading {data}")
    dataset = load_dataset(data, data_format=data_format, threads=threads)
    return dataset, recipe_for(dataset)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
