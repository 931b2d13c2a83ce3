"""Write CSV files that appear whole or not at all."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from pathlib import Path

from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors

__all__ = ["CsvFile"]


class CsvFile:
    """Write one table: UTF-8 with a byte order mark, by which spreadsheets know it; RFC 4180,
    columns named in the first line.

    write_row, complete and finish raise OutputError if writing fails.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = AtomicFile(path)
        # A stream writer has no buffer of its own, so that the AtomicFile knows of everything there
        # is to write.
        with explain_os_errors(path):
            self._file.file.write(codecs.BOM_UTF8)
        self._writer = csv.writer(codecs.getwriter("utf-8")(self._file.file))
        self.write_row(columns)

    def write_row(self, cells: Sequence[str | int]) -> None:
        with explain_os_errors(self._file.path):
            self._writer.writerow(cells)

    def complete(self) -> None:
        self._file.complete()

    def sha256(self) -> str:
        return self._file.sha256()

    def finish(self) -> None:
        self._file.finish()

    def discard(self) -> None:
        self._file.discard()
