"""slides.csv: one row a slide, with the share of abnormal regions and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rbc_engine.sinks.tables.csv_file import CsvFile
from rbc_engine.stats.counts import SlideCounts, SlideTally
from rbc_engine.text import csv_text
from rbc_engine.types.results import FieldResult

__all__ = ["SlidesCsv"]

_COLUMNS = (
    "slide",
    "fields",
    "failed",
    "regions",
    "abnormal",
    "abnormal_fraction",
    "ci_low",
    "ci_high",
)


class SlidesCsv:
    """Written when the run is complete, from the counts of all its fields. Shares have six decimals."""

    NAME = "slides.csv"
    needs_frames = False

    def __init__(self, folder: Path, types: Sequence[str]) -> None:
        self._tally = SlideTally()
        self._types = len(types)
        self._written = False
        columns = (*_COLUMNS, *(f"n_{name}" for name in types))
        self._file = CsvFile(folder / self.NAME, columns)

    def write(self, result: FieldResult) -> None:
        self._tally.add(result)

    def complete(self) -> None:
        if not self._written:
            for row in self._tally.rows():
                self._file.write_row(self._cells(row))
            self._written = True
        self._file.complete()

    def sha256(self) -> str:
        """Of the file, once it is complete."""
        return self._file.sha256()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        self._file.discard()

    def _cells(self, row: SlideCounts) -> list[str | int]:
        shares = (row.abnormal_fraction, row.ci_low, row.ci_high)
        type_counts = row.type_counts.tolist() or [0] * self._types
        return [
            csv_text(row.slide),
            row.fields,
            row.failed,
            row.regions,
            row.abnormal,
            *("" if share is None else f"{share:.6f}" for share in shares),
            *type_counts,
        ]
