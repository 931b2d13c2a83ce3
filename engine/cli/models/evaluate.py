"""Measure a pack on labelled smears: `rbc-engine evaluate`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.errors import UsageError

if TYPE_CHECKING:
    from rbc_engine.training.evaluation.result import Evaluation

__all__ = ["evaluate"]

_NEEDED = ("sklearn", "scipy", "matplotlib")


def evaluate(
    pack: Annotated[
        str,
        typer.Argument(metavar="PACK", help="Name of a shipped model pack, or a pack's folder."),
    ],
    data: Annotated[Path, typer.Option(help="Folder of the labelled images.")],
    data_format: Annotated[str, typer.Option("--format", help="What --data holds, e.g. chula12.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for evaluation.json, evaluation.md and plots; created if missing."
        ),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            help="regions.parquet of `rbc-engine run` with this pack on these images, used instead "
            "of a new run."
        ),
    ] = None,
    groups: options.Groups = None,
    held_out: options.HeldOut = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: options.Precision = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling for the intervals.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an evaluation in --out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json only.")] = False,
) -> None:
    """Measure a pack on labelled smears, with intervals over smears."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"evaluate needs {', '.join(missing)}, which is not installed; pip install "
            "'rbc-engine[train]'"
        )
    from rbc_engine.packs.pack import Pack, find_pack
    from rbc_engine.training.datasets.formats.table import load_dataset
    from rbc_engine.training.evaluation.report.evaluation_files import (
        prepare_folder,
        write_evaluation,
    )
    from rbc_engine.training.evaluation.score import score_pack

    def log(line: str) -> None:
        if not as_json:
            print(line, file=sys.stderr, flush=True)

    opened = Pack.open(find_pack(pack))
    if out is not None:
        prepare_folder(out, overwrite=overwrite)
    log(f"reading {data}")
    scored = score_pack(
        opened,
        load_dataset(data, data_format=data_format, threads=None),
        data_format=data_format,
        groups=None if groups is None else [name.strip() for name in groups.split(",")],
        held_out=held_out,
        regions=regions,
        device=device,
        precision=precision,
        seed=seed,
        log=log,
    )
    if out is not None:
        write_evaluation(out, scored)
    if as_json:
        print(scored.evaluation.model_dump_json(indent=2, by_alias=True))
    else:
        _print(scored.evaluation, out)


def _print(evaluation: Evaluation, out: Path | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rbc_engine.training.evaluation.report.tables import summary_line, tables

    console = Console()
    console.print(escape(summary_line(evaluation)), soft_wrap=True)
    for content in tables(evaluation):
        table = Table(*content.headings, title=content.title, title_justify="left", box=box.SIMPLE)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in content.rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for warning in evaluation.warnings:
        console.print(f"note: {escape(warning)}", soft_wrap=True)
    if out is not None:
        console.print(f"evaluation in {escape(str(out))}", soft_wrap=True)
