"""fields.csv: one row an image, also for those that failed."""

from __future__ import annotations

from pathlib import Path

from rbc_engine.sinks.csv_file import CsvFile
from rbc_engine.sinks.text import csv_text
from rbc_engine.types import FieldResult

__all__ = ["FieldsCsv"]

_COLUMNS = (
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
)


class FieldsCsv:
    """Status is `done` or `failed`. A failed field has a reason in `error` and empty cells for what is not known."""

    NAME = "fields.csv"
    needs_frames = False

    def __init__(self, folder: Path) -> None:
        self._file = CsvFile(folder / self.NAME, _COLUMNS)

    def write(self, result: FieldResult) -> None:
        regions = result.regions
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
            )
        )

    def complete(self) -> None:
        self._file.complete()

    def finish(self) -> None:
        self._file.finish()

    def discard(self) -> None:
        self._file.discard()
