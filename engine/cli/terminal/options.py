"""Options that several commands have, and what is checked of them."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Device",
    "EstimateScale",
    "FieldPrior",
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
Lanes = Annotated[int | None, typer.Option(min=1, help="Batches in flight; by default what suits.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results in --out.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out; keep what is done there.")
]
EstimateScale = Annotated[
    bool,
    typer.Option(
        help="Without --um-per-px: where the cells of a field have a size that no blood has, take its scale from them."
    ),
]
FieldPrior = Annotated[
    bool,
    typer.Option(
        help="Let the cells of a field correct each other's probabilities; else each region is judged by itself."
    ),
]
Groups = Annotated[
    str | None, typer.Option(help="Judge only by these smear groups, separated by commas.")
]
HeldOut = Annotated[
    bool,
    typer.Option("--held-out", help="Judge only by the smears held out of the pack's training."),
]
Json = Annotated[bool, typer.Option("--json", help="Print run.json, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only errors.")]


def names(text: str) -> list[str]:
    """What stands between the commas."""
    return [name for name in (part.strip() for part in text.split(",")) if name]
