"""fields.csv: one row an image, also for those that failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rbc_engine.sinks.tables.csv_file import CsvFile
from rbc_engine.text import csv_text
from rbc_engine.types.results import FieldResult

__all__ = ["FIELD_COLUMNS", "FieldsCsv"]

FIELD_COLUMNS = (
    "slide",
    "field",
    "path",
    "width",
    "height",
    "status",
    "error",
    "regions",
    "abnormal",
    "saturated",
    "seconds",
    "bytes",
    "modified",
    "um_per_px",
    "um_per_px_from",
    "cells",
    "unfamiliar_distance",
    "uncovered",
    "flags",
)
"""Those that read it back must agree: rbc_engine.runs.finished.finished_run."""


class FieldsCsv:
    """Write fields.csv. Status is `done` or `failed`.

    A failed field has a reason in `error` and empty cells for what is not known.

    bytes and modified are those of the image file when it was read: its size, and UTC with
    nanoseconds. regions and cells are its rows of regions.parquet and cells.parquet. flags are
    names joined by ';'.
    """

    NAME = "fields.csv"
    needs_frames = False

    def __init__(self, folder: Path) -> None:
        self._file = CsvFile(folder / self.NAME, FIELD_COLUMNS)

    def write(self, result: FieldResult) -> None:
        regions, stamp = result.regions, result.stamp
        self._file.write_row(
            (
                csv_text(result.slide),
                csv_text(result.field),
                csv_text(result.path),
                result.width or "",
                result.height or "",
                "done" if result.ok else "failed",
                csv_text(result.error or ""),
                "" if regions is None else len(regions),
                "" if regions is None else int(regions.abnormal.sum()),
                "" if regions is None else str(result.saturated).lower(),
                f"{result.seconds:.6f}",
                "" if stamp is None else stamp.bytes,
                "" if stamp is None else f"{np.datetime64(stamp.modified_ns, 'ns')}Z",
                _number(result.um_per_px),
                "" if regions is None else result.um_per_px_from,
                "" if regions is None else len(regions.cells),
                _number(result.unfamiliar_distance),
                _number(result.uncovered),
                ";".join(result.flags.names()),
            )
        )

    def complete(self) -> None:
        self._file.complete()

    def sha256(self) -> str:
        """Return the SHA-256 of the file, once it is complete."""
        return self._file.sha256()

    def finish(self) -> None:
        self._file.finish()

    def discard(self) -> None:
        self._file.discard()


def _number(value: float | None) -> str:
    """Write a number so that it is read back as it was; '' for None."""
    return "" if value is None else repr(float(value))
