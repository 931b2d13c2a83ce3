"""Define and check options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from rbc_engine.sinks.formats.table import DEFAULT_FORMATS, FORMATS, ONLY

__all__ = [
    "Device",
    "EstimateScale",
    "FieldPrior",
    "Formats",
    "Groups",
    "HeldOut",
    "Json",
    "Lanes",
    "Overwrite",
    "Pack",
    "Precision",
    "Quiet",
    "Resume",
    "names",
]

Pack = Annotated[str, typer.Option(help="Name of a shipped model pack, or a pack's folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, cuda:N,M or cuda:all.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16, int8 or fp8.")]
Lanes = Annotated[
    int | None, typer.Option(min=1, help="Batches in flight; by default chosen for the machine.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume the run in --out and keep its results.")
]
Formats = Annotated[
    str,
    typer.Option(
        help=f"Outputs beside the tables and {' and '.join(DEFAULT_FORMATS)}, separated by commas: "
        f"{', '.join(FORMATS)}. With {ONLY} among them, nothing but what is named."
    ),
]
EstimateScale = Annotated[
    bool,
    typer.Option(
        help="Without --um-per-px, estimate the scale of a field whose cells have an implausible "
        "size.",
    ),
]
FieldPrior = Annotated[
    bool,
    typer.Option(help="Correct probabilities for the mix of types in each field."),
]
Groups = Annotated[
    str | None, typer.Option(help="Use only these smear groups, separated by commas.")
]
HeldOut = Annotated[
    bool,
    typer.Option("--held-out", help="Use only the smears held out of the pack's training."),
]
Json = Annotated[bool, typer.Option("--json", help="Print run.json only.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only errors.")]


def names(text: str) -> list[str]:
    """Split names at the commas."""
    return [name for name in (part.strip() for part in text.split(",")) if name]
