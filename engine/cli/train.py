"""Train a model pack from labelled smears: `rbc-engine train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.errors import RbcError, UsageError

if TYPE_CHECKING:
    from rbc_engine.training.plan import TrainingPlan

__all__ = ["app", "parse_stages", "training_errors"]

EXIT_INTERRUPTED = 130

_NEEDED = ("torch", "torchvision", "sklearn", "scipy", "onnx", "onnxscript", "tomli_w")

app = typer.Typer(
    help="Train the detector and the classifier, and make a pack of them.", no_args_is_help=True
)

Data = Annotated[Path, typer.Option(help="Folder of the labelled images.")]
Work = Annotated[
    Path,
    typer.Option(help="Folder for checkpoints; a stopped training resumes from it."),
]
Format = Annotated[
    str,
    typer.Option("--format", help="What --data holds: chula12, masks, voc, coco or synthetic."),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same training.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 for all cores.")]
Share = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=0.9,
        help="Share of the smears to hold out; 0 for the final training on all of them.",
    ),
]
Split = Annotated[
    str,
    typer.Option(
        help="smears: hold out whole smears. images: hold out images of smears that are also used "
        "for training; optimistic, for comparison with published results. images-of-held-out: the "
        "same, only of the smears that `smears` holds out."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the detector.")]
Stages = Annotated[
    str | None,
    typer.Option(
        help="Stages of the classifier, PATCH_PX:PATCHES each, separated by commas, e.g. "
        "40:64000,64:32000."
    ),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        help="Fine-tune the weights of another training (its --work) or of a pack (name or folder)."
    ),
]
Bf16 = Annotated[
    bool,
    typer.Option("--bf16", help="Compute in bfloat16: faster on a processor that supports it."),
]
LearningRate = Annotated[
    float | None, typer.Option(min=1e-7, max=1.0, help="Highest learning rate.")
]
Batch = Annotated[int | None, typer.Option(min=2, max=4096, help="Patches per step.")]
DetectorTrunkOption = Annotated[str | None, typer.Option(help="resnet18, resnet50 or resnet101.")]
Preset = Annotated[
    str,
    typer.Option(help="best: as for the shipped pack. paper: as in Qiu et al. 2019."),
]
TrunkWeightsOption = Annotated[
    str,
    typer.Option(
        "--trunk-weights",
        help="Initial weights of the trunk: imagenet, scratch, or auto for ImageNet's if they can "
        "be downloaded.",
    ),
]
ClassifierTrunkOption = Annotated[str | None, typer.Option(help="resnet18, resnet34 or resnet50.")]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the new pack; by default that of --format.")
]
Out = Annotated[Path, typer.Option(help="Folder of the new pack.")]
MaxFalseShare = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Largest share of false regions on held-out smears; sets the score threshold.",
    ),
]

BestF1 = Annotated[
    bool,
    typer.Option(
        "--best-f1",
        help="Choose each type's threshold by its F1 on held-out smears, instead of 0.6 for all.",
    ),
]
MeasuredBy = Annotated[
    Path | None,
    typer.Option(
        help="With --validation-share 0: the pack trained with smears held out, "
        "which provides caller, score threshold and accuracy."
    ),
]


@app.command()
def detector(
    data: Data,
    work: Work,
    data_format: Format = "chula12",
    seed: Seed = 0,
    threads: Threads = 0,
    validation_share: Share = 0.22,
    split: Split = "smears",
    preset: Preset = "best",
    steps: Steps = None,
    detector_trunk: DetectorTrunkOption = None,
    trunk_weights: TrunkWeightsOption = "auto",
    bf16: Bf16 = False,
    start_from: StartFrom = None,
) -> None:
    """Train the detector of red-cell regions."""
    with training_errors():
        plan = _plan(data, work, data_format, seed, threads, validation_share, split)
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
    seed: Seed = 0,
    threads: Threads = 0,
    validation_share: Share = 0.22,
    split: Split = "smears",
    preset: Preset = "best",
    stages: Stages = None,
    classifier_trunk: ClassifierTrunkOption = None,
    trunk_weights: TrunkWeightsOption = "auto",
    learning_rate: LearningRate = None,
    batch: Batch = None,
    bf16: Bf16 = False,
    start_from: StartFrom = None,
) -> None:
    """Train the classifier of cell types."""
    with training_errors():
        parsed = parse_stages(stages)
        plan = _plan(data, work, data_format, seed, threads, validation_share, split)
        plan.train_classifier(
            preset=preset,
            stages=parsed,
            trunk=classifier_trunk,
            trunk_weights=trunk_weights,
            learning_rate=learning_rate,
            batch=batch,
            bf16=bf16,
            start=start_from,
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
        plan = _plan(data, work, data_format, seed, threads, validation_share, split)
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
        plan = _plan(data, work, data_format, seed, threads, validation_share, split)
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
) -> TrainingPlan:
    from rbc_engine.training.plan import TrainingPlan

    return TrainingPlan.open(
        data,
        work,
        data_format=data_format,
        seed=seed,
        threads=threads or len(os.sched_getaffinity(0)),
        validation_share=validation_share,
        split=split,
        log=_log,
    )


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
