"""Define the options of `rbc-engine train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Batch",
    "BestF1",
    "Bf16",
    "ClassifierTrunkOption",
    "CollectionOption",
    "Data",
    "DetectorTrunkOption",
    "Device",
    "Format",
    "FrozenNorms",
    "LearningRate",
    "MaxFalseShare",
    "MeasuredBy",
    "Name",
    "Only",
    "Out",
    "Preset",
    "Seed",
    "Share",
    "SoftWeight",
    "Split",
    "SplitSeed",
    "Stages",
    "StartFrom",
    "Steps",
    "TeacherOption",
    "Threads",
    "TrunkWeightsOption",
    "Without",
    "Work",
]

Data = Annotated[Path, typer.Option(help="Folder of the labelled images.")]
Work = Annotated[
    Path,
    typer.Option(help="Folder for checkpoints; a stopped training resumes from it."),
]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="What --data holds: chula12, masks, voc, coco, boxes or synthetic."
    ),
]
CollectionOption = Annotated[
    str | None,
    typer.Option(
        "--collection",
        help="Train on several laboratories, whose folders are below --data: laboratories, or a "
        "TOML file that names them; instead of --format. The detector then finds single cells by "
        "kind.",
    ),
]
Only = Annotated[
    str | None, typer.Option(help="Train only on these datasets of the collection: NAME,NAME,...")
]
Without = Annotated[
    str | None, typer.Option(help="Leave out these datasets of the collection: NAME,NAME,...")
]
Device = Annotated[str, typer.Option(help="Device to train on: cpu, or cuda for one NVIDIA GPU.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same training.")]
SplitSeed = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="With a collection: seed of the split, so that trainings with other seeds hold out "
        "the same smears; by default --seed.",
    ),
]
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
ClassifierTrunkOption = Annotated[
    str | None,
    typer.Option(
        help="resnet18, resnet34, resnet50, or efficientnet_lite0, 1 or 2, whose ImageNet weights "
        "come in a package."
    ),
]
FrozenNorms = Annotated[
    bool,
    typer.Option(
        "--frozen-norms", help="With a collection: BatchNorms keep the statistics of ImageNet."
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        help="With a collection: --work of finished trainings, DIR,DIR,..., whose mean "
        "probabilities are targets for every cell, labelled or not.",
    ),
]
SoftWeight = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1.0, help="Weight of the teachers relative to a label; 0.7 by default."
    ),
]
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
