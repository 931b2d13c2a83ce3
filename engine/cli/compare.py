"""Compare a later run with an earlier one: `rbc-engine compare`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.cli.terminal.streams import print_json

__all__ = ["compare"]

_TABLE_ROWS = 40


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of the earlier run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of the later run.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for compare.html, compare.json and changes.csv."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a comparison in --out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print compare.json only.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Show regions gained, lost and relabelled, and slides whose abnormal share or grade
    changed.
    """
    from rbc_engine.runs.compare.compare import Change, compare_runs
    from rbc_engine.runs.compare.comparison_files import (
        COMPARISON,
        CompareOutput,
        comparison_record,
    )
    from rbc_engine.runs.finished.finished_run import FinishedRun
    from rbc_engine.sinks.out_folder import claim

    claimed = None
    if out is not None:
        claimed = claim(
            out,
            "overwrite" if overwrite else "new",
            inputs={"RUN_A": [run_a], "RUN_B": [run_b]},
            contents=COMPARISON,
        )
    with ExitStack() as stack:
        a = stack.enter_context(FinishedRun(run_a))
        b = stack.enter_context(FinishedRun(run_b))
        output = None
        if claimed is not None:
            output = stack.enter_context(CompareOutput(claimed))

        def on_change(change: Change) -> None:
            if output is not None:
                output.write(change)

        record = comparison_record(a, b, compare_runs(a, b, on_change=on_change))
        if output is not None:
            output.finish(record)
    if as_json:
        print_json(json.dumps(record))
    elif not quiet:
        _print(record, out)


def _print(record: dict[str, Any], out: Path | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rbc_engine.stats.grade import grade_text
    from rbc_engine.text import printable

    console = Console()

    def table(title: str, heads: list[str], rows: list[list[Any]]) -> None:
        console.print(f"{title}:")
        shown = Table(*heads, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        shown.columns[0].overflow = "fold"
        for column in shown.columns[1:]:
            column.justify = "right"
        for row in rows[:_TABLE_ROWS]:
            shown.add_row(*(escape(printable(str(cell))) for cell in row))
        console.print(shown)
        if len(rows) > _TABLE_ROWS:
            console.print(f"and {len(rows) - _TABLE_ROWS} more")

    columns = ["a", "b", "matched", "gained", "lost", "relabelled", "to_abnormal", "to_normal"]
    heads = ["in A", "in B", "in both", "gained", "lost", "other\ntypes"]
    heads += ["now\nabnormal", "now\nnormal", "abnormal\nshare"]
    slides = sorted(record["slides"], key=lambda row: row["verdict"] is None)
    rows = [
        [row["slide"], *(row["regions"][name] for name in columns), row["verdict"] or ""]
        for row in slides
    ]
    total = ["all", *(record["regions"][name] for name in columns), ""]
    table(
        "regions of each slide, and whether its abnormal share is higher or lower now",
        ["slide", *heads],
        [*rows[: _TABLE_ROWS - 1], total],
    )
    if len(rows) > _TABLE_ROWS - 1:
        console.print(f"and {len(rows) - _TABLE_ROWS + 1} more slides")
    regraded = [
        [
            row["slide"],
            each["name"],
            *(grade_text(each[run]["grades"]["grade"]) for run in ("a", "b")),
        ]
        for row in record["slides"]
        for each in row["grades"]
        if each["changed"]
    ]
    if regraded:
        table("slides whose grade changed", ["slide", "type", "A", "B"], regraded)
    names = ["name", "a", "b", "kept", "gained", "lost", "new", "gone"]
    table(
        "regions that hold a type",
        ["type", "A", "B", "in both", "gained", "lost", "new", "gone"],
        [[row[name] for name in names] for row in record["types"]],
    )
    for run in ("a", "b"):
        fields = record["fields"][f"only_{run}"]
        if fields:
            table(
                f"fields done only in {run.upper()}",
                ["field", "why"],
                [[f"{row['slide']}: {row['field']}", row["why"]] for row in fields],
            )
    for note in record["notes"]:
        console.print(f"note: {escape(printable(note))}", soft_wrap=True)
    if out is not None:
        shown = printable(f"{out}, to look at: {out / 'compare.html'}")
        console.print(f"comparison in {escape(shown)}", soft_wrap=True)
