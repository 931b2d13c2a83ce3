"""Write regions.csv: the rows of regions.parquet as text."""

from __future__ import annotations

import codecs
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.sinks.tables.region_rows import (
    ROWS_AT_ONCE,
    RegionRows,
    region_schema,
    region_table,
)
from rbc_engine.text import csv_text
from rbc_engine.types.results import FieldResult

__all__ = ["RegionsCsv"]


class RegionsCsv:
    """Write UTF-8 with a byte order mark; text in double quotes, true and false, shortest
    float32; made safe for spreadsheets by csv_text.
    """

    NAME = "regions.csv"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._types = pack.types
        self._rows = RegionRows()
        self._file = AtomicFile(folder / self.NAME)
        self._file.write(codecs.BOM_UTF8)
        self._writer = pa.csv.CSVWriter(self._file.file, region_schema(pack.types))

    def write(self, result: FieldResult) -> None:
        self._rows.add(result)
        if len(self._rows) >= ROWS_AT_ONCE:
            self._write_rows()

    def complete(self) -> None:
        if not self._file.file.closed:
            self._write_rows()
            with explain_os_errors(self._file.path):
                self._writer.close()
        self._file.complete()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        with suppress(OSError, ValueError):
            self._writer.close()
        self._file.discard()

    def _write_rows(self) -> None:
        if len(self._rows):
            table = region_table(self._rows.take(), self._types, text=csv_text)
            with explain_os_errors(self._file.path):
                self._writer.write_table(table)
