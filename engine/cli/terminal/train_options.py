"""The options of `rbc-engine train`."""

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
    typer.Option(help="Folder for checkpoints. A training that was stopped goes on from there."),
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
        help="Train on several laboratories, whose folders lie below --data: laboratories, or a TOML file that "
        "names them; instead of --format. The detector then finds single cells by kind.",
    ),
]
Only = Annotated[
    str | None, typer.Option(help="Of a collection, the datasets to train on: NAME,NAME,...")
]
Without = Annotated[
    str | None, typer.Option(help="Of a collection, the datasets to leave out: NAME,NAME,...")
]
Device = Annotated[str, typer.Option(help="What to train on: cpu, or cuda for one NVIDIA GPU.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same training.")]
SplitSeed = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="With a collection: which smears are held out, so that trainings of several seeds hold out the same; "
        "by default --seed.",
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 for the cores there are.")]
Share = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=0.9,
        help="Share of the smears held out to judge by; 0 for the last training, on all of them.",
    ),
]
Split = Annotated[
    str,
    typer.Option(
        help="What is held out: smears; images, of smears that are trained on, which judges too well and stands "
        "beside published figures; or images-of-held-out, only of the smears that `smears` holds out."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the detector.")]
Stages = Annotated[
    str | None,
    typer.Option(
        help="Of the classifier: PATCH_PX:PATCHES, one after the other, e.g. 40:64000,64:32000."
    ),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        help="--work of another training, or a pack (name or folder), with whose weights this one begins."
    ),
]
Bf16 = Annotated[
    bool, typer.Option("--bf16", help="Compute in bfloat16: faster on a processor that has it.")
]
LearningRate = Annotated[
    float | None, typer.Option(min=1e-7, max=1.0, help="Highest learning rate.")
]
Batch = Annotated[int | None, typer.Option(min=2, max=4096, help="Patches a step.")]
DetectorTrunkOption = Annotated[str | None, typer.Option(help="resnet18, resnet50 or resnet101.")]
Preset = Annotated[
    str,
    typer.Option(help="best: what the shipped pack came of. paper: as Qiu et al. 2019 did it."),
]
TrunkWeightsOption = Annotated[
    str,
    typer.Option(
        "--trunk-weights",
        help="What the trunk begins with: imagenet, scratch, or auto for ImageNet's where they can be fetched.",
    ),
]
ClassifierTrunkOption = Annotated[
    str | None,
    typer.Option(
        help="resnet18, resnet34, resnet50, or efficientnet_lite0, 1 or 2, which have ImageNet weights in a package."
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
        help="With a collection: --work of finished trainings, DIR,DIR,..., whose mean probabilities are learnt on "
        "every cell, labelled or not.",
    ),
]
SoftWeight = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="What the teachers weigh beside a label; 0.7 unless told."),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Of the new pack; by default what --format says.")
]
Out = Annotated[Path, typer.Option(help="Folder of the new pack.")]
MaxFalseShare = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Of the regions found on held-out smears; sets the score threshold."
    ),
]

BestF1 = Annotated[
    bool,
    typer.Option(
        "--best-f1", help="Thresholds of the types by their F1 on held-out smears, not 0.6 for all."
    ),
]
MeasuredBy = Annotated[
    Path | None,
    typer.Option(
        help="With --validation-share 0: the pack trained before with smears held out, "
        "whose caller, score threshold and accuracy this one takes over."
    ),
]
