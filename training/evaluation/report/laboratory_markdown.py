"""Show the table by laboratory: laboratories.md, and the same on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rbc_engine.training.evaluation.laboratories.laboratory_table import (
    MEASURES,
    TYPE_MEASURES,
    LaboratoryTable,
)
from rbc_engine.training.evaluation.report.tables import Table, markdown_lines, measure_text
from rbc_engine.training.evaluation.result import Measure

__all__ = ["headline", "laboratories_markdown", "laboratory_tables"]


def laboratory_tables(table: LaboratoryTable, *, intervals: bool = True) -> list[Table]:
    """Return a table with a row for each laboratory, and one of the types where they are
    labelled.

    intervals: whether to give them with each measure.
    """

    def texts(measures: Mapping[str, Measure], names: Iterable[str]) -> list[str]:
        chosen = [measures[name] for name in names]
        if not intervals:
            chosen = [Measure(value=one.value, low=None, high=None) for one in chosen]
        return [measure_text(one) or "–" for one in chosen]

    headings = ("laboratory", "fields", *(heading for heading, _ in MEASURES.values()))
    rows = [
        (f"{row.name}, {row.use}", str(row.fields), *texts(row.measures, MEASURES))
        for row in table.laboratories
    ]
    for title in ("mean", "worst"):
        summed = [table.summary.get(name) for name in MEASURES]
        cells = ["–" if one is None else f"{getattr(one, title):.3f}" for one in summed]
        rows.append((title, "", *cells))
    found = [Table(title="By laboratory", headings=headings, rows=rows)]
    typed = [
        (row.name, *texts(row.types, TYPE_MEASURES))
        for row in table.laboratories
        if row.types is not None
    ]
    if typed:
        headings = ("laboratory", *(heading for heading, _ in TYPE_MEASURES.values()))
        found.append(Table(title="Types", headings=headings, rows=typed))
    return found


def laboratories_markdown(table: LaboratoryTable) -> str:
    """Return laboratories.md."""
    lines = [f"# {table.pack.name} {table.pack.version} by laboratory", "", headline(table), ""]
    return "\n".join([*lines, *markdown_lines(laboratory_tables(table), table.warnings), ""])


def headline(table: LaboratoryTable) -> str:
    """Describe pack, engine and intervals in a sentence or two."""
    pack, engine, bootstrap = table.pack, table.engine, table.bootstrap
    return (
        f"{pack.name} {pack.version} (sha256 {pack.sha256[:12]}) on {table.collection}; "
        f"{engine.device}, {engine.precision}; score threshold {engine.score_threshold:g}. In "
        f"brackets: {bootstrap.percent:g} % intervals, {bootstrap.resamples} resamples of smears, "
        f"or of fields where these are not known, seed {bootstrap.seed}."
    )
