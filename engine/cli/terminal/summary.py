"""Print the summary of a run."""

from __future__ import annotations

import sys

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from rich.table import Table

    from rbc_engine.text import printable

    console = Console()
    rows = list(slides)
    others = {
        label: name
        for label, name in (("white cells", "white_cells"), ("platelets", "platelets"))
        if any(getattr(row, name) for row in rows)
    }
    heads = ("slide", "fields", "failed", "regions", "abnormal", "share", "95 % interval")
    table = Table(*heads, *others)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for row in rows[:_TABLE_ROWS]:
        table.add_row(
            escape(printable(row.slide)),
            str(row.fields),
            str(row.failed),
            str(row.regions),
            str(row.abnormal),
            f"{row.abnormal_fraction:.1%}" if row.abnormal_fraction is not None else "",
            f"{row.ci_low:.1%} to {row.ci_high:.1%}" if row.ci_low is not None else "",
            *(str(getattr(row, name)) for name in others.values()),
        )
    console.print(table)
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
