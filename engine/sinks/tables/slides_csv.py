"""slides.csv: one row a slide, with the share of abnormal regions and how sure it is."""

from __future__ import annotations

from pathlib import Path

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.tables.csv_file import CsvFile
from rbc_engine.stats.corrected import corrected_share
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
    "border",
    "whole_abnormal",
    "abnormal_fraction",
    "ci_low",
    "ci_high",
    "abnormal_corrected",
    "corrected_low",
    "corrected_high",
    "cells",
    "white_cells",
    "platelets",
    "white_per_100_red",
    "platelets_per_100_red",
)


class SlidesCsv:
    """Write slides.csv when the run is complete, from the counts of all fields.

    Shares have six decimals, and are of red regions clear of the border: border counts those left
    out, whole_abnormal the abnormal ones among the others. cells are the slide's rows of
    cells.parquet. Cells are empty where the pack gives no value: corrected shares without its
    sensitivity and specificity, and kinds that its detector does not know.
    """

    NAME = "slides.csv"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._tally = SlideTally()
        self._types = len(pack.types)
        self._kinds = pack.manifest.detector.kinds
        self._caller = pack.manifest.caller
        self._written = False
        columns = (*_COLUMNS, *(f"n_{name}" for name in pack.types))
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
        """Return the SHA-256 of the file, once it is complete."""
        return self._file.sha256()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        self._file.discard()

    def _cells(self, row: SlideCounts) -> list[str | int]:
        shares = (row.abnormal_fraction, row.ci_low, row.ci_high)
        corrected = corrected_share(
            row.whole_abnormal,
            row.whole,
            sensitivity=self._caller.sensitivity,
            specificity=self._caller.specificity,
        )
        type_counts = row.type_counts.tolist() or [0] * self._types
        return [
            csv_text(row.slide),
            row.fields,
            row.failed,
            row.regions,
            row.abnormal,
            row.border,
            row.whole_abnormal,
            *map(_share, shares),
            *map(_share, corrected or (None, None, None)),
            row.cells,
            row.white_cells if "white_cell" in self._kinds else "",
            row.platelets if "platelet" in self._kinds else "",
            _share(row.per_100_red(row.white_cells) if "white_cell" in self._kinds else None),
            _share(row.per_100_red(row.platelets) if "platelet" in self._kinds else None),
            *type_counts,
        ]


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.6f}"
