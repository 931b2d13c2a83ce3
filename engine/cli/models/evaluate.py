"""Measure a pack on labelled smears: `rbc-engine evaluate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.errors import UsageError

if TYPE_CHECKING:
    from rbc_engine.packs.pack import Pack
    from rbc_engine.training.evaluation.laboratories.by_laboratory import HeldOut
    from rbc_engine.training.evaluation.laboratories.laboratory_table import LaboratoryTable
    from rbc_engine.training.evaluation.report.tables import Table
    from rbc_engine.training.evaluation.score import Scored

__all__ = ["evaluate"]

_NEEDED = ("sklearn", "scipy", "matplotlib")
_WIDE = 2
"""Most laboratories whose intervals a terminal has room for."""

Log = Callable[[str], None]


def evaluate(
    pack: Annotated[
        str,
        typer.Argument(metavar="PACK", help="Name of a shipped model pack, or a pack's folder."),
    ],
    data: Annotated[Path, typer.Option(help="Folder of the labelled images.")],
    data_format: Annotated[
        str | None, typer.Option("--format", help="What --data holds, e.g. chula12 or boxes.")
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            help="Measure on several laboratories, whose folders are below --data: laboratories, "
            "or a TOML file that names them; instead of --format."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Measure only on these datasets of the collection: NAME,NAME,..."),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(help="Leave out these datasets of the collection: NAME,NAME,..."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Measure on at most so many fields of each laboratory."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Training on the collection: measure on what it held out, and on all of the "
            "laboratories that it left out."
        ),
    ] = None,
    validation_share: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.9, help="As in the training on the collection; 0.22."),
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(min=0, help="As in the training on the collection; 0.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for evaluation.json, evaluation.md and plots, and for laboratories.json "
            "and laboratories.md; created if missing."
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
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print only evaluation.json, or laboratories.json of a collection."
        ),
    ] = False,
) -> None:
    """Measure a pack on labelled smears, with intervals over smears."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"evaluate needs {', '.join(missing)}, which is not installed; pip install "
            "'rbc-engine[train]'"
        )
    of_collection: dict[str, object] = {
        "--only": only,
        "--without": without,
        "--limit": limit,
        "--work": work,
        "--validation-share": validation_share,
        "--split-seed": split_seed,
    }
    of_format: dict[str, object] = {
        "--regions": regions,
        "--groups": groups,
        "--held-out": held_out or None,
    }
    if (data_format is None) == (collection is None):
        raise UsageError(
            "give either --format, for one dataset, or --collection, for several laboratories"
        )
    _refuse(of_collection if collection is None else of_format, collection)

    from rbc_engine.packs.pack import Pack, find_pack
    from rbc_engine.training.evaluation.report.evaluation_files import prepare_folder

    def log(line: str) -> None:
        if not as_json:
            print(line, file=sys.stderr, flush=True)

    opened = Pack.open(find_pack(pack))
    if out is not None:
        prepare_folder(out, overwrite=overwrite)
    if collection is not None:
        _of_collection(
            opened,
            data,
            collection,
            only=options.names(only or ""),
            without=options.names(without or ""),
            limit=limit,
            held_out=_held_out(collection, work, validation_share, split_seed),
            out=out,
            device=device,
            precision=precision,
            seed=seed,
            as_json=as_json,
            log=log,
        )
        return
    assert data_format is not None
    _of_format(
        opened,
        data,
        data_format,
        groups=None if groups is None else [name.strip() for name in groups.split(",")],
        held_out=held_out,
        regions=regions,
        out=out,
        device=device,
        precision=precision,
        seed=seed,
        as_json=as_json,
        log=log,
    )


def _refuse(values: dict[str, object], collection: str | None) -> None:
    if given := [name for name, value in values.items() if value is not None]:
        needed = "--collection" if collection is None else "--format"
        raise UsageError(f"{' and '.join(given)} need {needed}; give that, or omit them")


def _held_out(
    collection: str, work: Path | None, validation_share: float | None, split_seed: int | None
) -> HeldOut:
    from rbc_engine.training.datasets.laboratories.collection import find_collection
    from rbc_engine.training.evaluation.laboratories.by_laboratory import HeldOut

    if work is not None:
        if validation_share is not None or split_seed is not None:
            raise UsageError(
                "--work states what was held out; omit --validation-share and --split-seed"
            )
        return HeldOut.of_workspace(work)
    trained = {entry.name for entry in find_collection(collection).dataset if entry.use == "train"}
    return HeldOut(
        trained=frozenset(trained),
        validation_share=0.22 if validation_share is None else validation_share,
        split_seed=split_seed or 0,
    )


def _of_collection(
    pack: Pack,
    data: Path,
    collection: str,
    *,
    only: Sequence[str],
    without: Sequence[str],
    limit: int | None,
    held_out: HeldOut,
    out: Path | None,
    device: str,
    precision: str,
    seed: int,
    as_json: bool,
    log: Log,
) -> None:
    from rbc_engine.training.datasets.laboratories.collection import find_collection
    from rbc_engine.training.evaluation.laboratories import by_laboratory
    from rbc_engine.training.evaluation.report.evaluation_files import write_laboratories
    from rbc_engine.training.evaluation.score import RESAMPLES

    described = find_collection(collection)
    laboratories = by_laboratory.read_laboratories(
        described,
        data,
        held_out=held_out,
        only=only,
        without=without,
        limit=limit,
        threads=_threads(),
        log=log,
    )
    results, engine = by_laboratory.analyze_laboratories(
        pack, laboratories, device=device, precision=precision, log=log
    )
    table = by_laboratory.tabulate(
        pack,
        laboratories,
        results,
        engine,
        collection=described.name,
        trained=held_out.trained,
        resamples=RESAMPLES,
        seed=seed,
        log=log,
    )
    if out is not None:
        write_laboratories(out, table)
    if as_json:
        print(table.model_dump_json(indent=2, by_alias=True))
    else:
        _print_laboratories(table, out)


def _of_format(
    pack: Pack,
    data: Path,
    data_format: str,
    *,
    groups: list[str] | None,
    held_out: bool,
    regions: Path | None,
    out: Path | None,
    device: str,
    precision: str,
    seed: int,
    as_json: bool,
    log: Log,
) -> None:
    from rbc_engine.training.datasets.formats.table import load_dataset
    from rbc_engine.training.evaluation.laboratories.by_laboratory import tabulate_folder
    from rbc_engine.training.evaluation.report.evaluation_files import write_evaluation
    from rbc_engine.training.evaluation.score import score_pack

    log(f"reading {data}")
    scored = score_pack(
        pack,
        load_dataset(data, data_format=data_format, threads=None),
        data_format=data_format,
        groups=groups,
        held_out=held_out,
        regions=regions,
        device=device,
        precision=precision,
        seed=seed,
        log=log,
    )
    laboratories = None
    if data_format == "boxes" and regions is None:
        laboratories = tabulate_folder(pack, data, scored, threads=_threads(), seed=seed, log=log)
    if out is not None:
        write_evaluation(out, scored, laboratories)
    if as_json:
        print(scored.evaluation.model_dump_json(indent=2, by_alias=True))
        return
    _print(scored, None if laboratories else out)
    if laboratories is not None:
        _print_laboratories(laboratories, out)


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _print(scored: Scored, out: Path | None) -> None:
    from rbc_engine.training.evaluation.report.tables import summary_line, tables

    evaluation = scored.evaluation
    _print_tables(summary_line(evaluation), tables(evaluation), evaluation.warnings, out)


def _print_laboratories(table: LaboratoryTable, out: Path | None) -> None:
    from rbc_engine.training.evaluation.report.laboratory_markdown import (
        headline,
        laboratory_tables,
    )
    from rbc_engine.training.evaluation.report.tables import transposed

    few = len(table.laboratories) <= _WIDE
    found = [transposed(one) for one in laboratory_tables(table, intervals=few)]
    _print_tables(headline(table), found, table.warnings, out)


def _print_tables(
    summary: str, found: Sequence[Table], warnings: Sequence[str], out: Path | None
) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = Console()
    console.print(escape(summary), soft_wrap=True)
    for content in found:
        table = RichTable(
            *content.headings, title=content.title, title_justify="left", box=box.SIMPLE
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for row in content.rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for warning in warnings:
        console.print(f"note: {escape(warning)}", soft_wrap=True)
    if out is not None:
        console.print(f"evaluation in {escape(str(out))}", soft_wrap=True)
