"""Print the summary of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from rbc_engine.runs.run_folder import RunSummary
    from rbc_engine.stats.counts import SlideCounts

__all__ = ["print_failures", "print_run", "print_summary"]

_TABLE_ROWS = 40


def print_run(summary: RunSummary) -> None:
    """Print what a run did."""
    counts = summary.record.counts
    if counts.failed and counts.failed == counts.fields:
        _complain(f"every one of {counts.fields} fields failed")
    print_summary(
        summary.slides,
        summary.record.warnings,
        summary.out,
        failures=summary.failures,
        report="report" in summary.record.settings.formats,
    )


def print_failures(summary: RunSummary) -> None:
    """Print to stderr the first fields that failed, with reasons; and if every one did, that first."""
    from rbc_engine.text import printable

    counts = summary.record.counts
    if counts.failed and counts.failed == counts.fields:
        _complain(f"every one of {counts.fields} fields failed")
    for failure in summary.failures:
        _complain(f"failed: {printable(failure)}")
    unshown = counts.failed - len(summary.failures)
    if unshown:
        _complain(f"and {unshown} more failed; fields.csv says why")


def _complain(text: str) -> None:
    print(f"rbc-engine: {text}", file=sys.stderr)


def print_summary(
    slides: Iterable[SlideCounts],
    warnings: Sequence[str],
    out: Path,
    *,
    failures: Sequence[str] = (),
    report: bool = False,
) -> None:
    """Print a table of the slides, failures and warnings.

    failures: the first fields that failed, with reasons. report: whether there is a report.html.
    """
    from rich.console import Console
    from rich.markup import escape

    from rbc_engine.text import printable

    console = Console()
    rows = list(slides)
    failed = ["failed"] if any(row.failed for row in rows) else []
    heads = ("slide", "fields", *failed, "red\nregions", "abnormal\nof whole", "share")
    table = _table(*heads, "95 %\ninterval")
    others = _table(
        "slide", "white\ncells", "for 100\nred cells", "platelets", "for 100\nred cells"
    )
    for row in rows[:_TABLE_ROWS]:
        table.add_row(
            escape(printable(row.slide)),
            str(row.fields),
            *([str(row.failed)] if failed else []),
            str(row.red_regions),
            f"{row.whole_abnormal} of {row.whole}",
            f"{row.abnormal_fraction:.1%}" if row.abnormal_fraction is not None else "",
            f"{row.ci_low:.1%}–{row.ci_high:.1%}" if row.ci_low is not None else "",
        )
        counts = (row.white_cells, row.platelets)
        per = (row.per_100_red(count) for count in counts)
        shown = ("" if value is None else f"{value:.1f}" for value in per)
        pairs = chain.from_iterable(zip(map(str, counts), shown, strict=True))
        others.add_row(escape(printable(row.slide)), *pairs)
    console.print(table)
    if any(row.white_cells or row.platelets for row in rows):
        console.print(others)
    border = sum(row.border for row in rows)
    if border:
        console.print(f"abnormal and share leave out {border} regions that a field's border cuts")
    if len(rows) > _TABLE_ROWS:
        console.print(f"and {len(rows) - _TABLE_ROWS} more slides in slides.csv")
    for failure in failures:
        console.print(f"failed: {escape(printable(failure))}", soft_wrap=True)
    unshown = sum(row.failed for row in rows) - len(failures)
    if failures and unshown:
        console.print(f"and {unshown} more failed; fields.csv says why")
    for warning in warnings:
        console.print(f"note: {escape(printable(warning))}", soft_wrap=True)
    page = f", to look at: {out / 'report.html'}" if report else ""
    console.print(f"results in {escape(printable(f'{out}{page}'))}", soft_wrap=True)


def _table(*heads: str) -> Table:
    """Return a table with these headings: text in the first column, numbers in the others."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(*heads, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    return table
