"""Write regions.csv: the regions of a run as a table for a spreadsheet."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.sinks.tables.regions_parquet import (
    ROWS_AT_ONCE,
    FieldRegions,
    RegionRows,
    region_table,
)
from rbc_engine.text import csv_text
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag
from rbc_engine.types.results import FieldResult

__all__ = ["RegionsCsv"]

_PROBABILITY = pa.decimal128(9, 4)
_PX = pa.decimal128(12, 1)
_BOX = ("x0", "y0", "x1", "y1")


class RegionsCsv:
    """Write the columns a person looks for first, then boxes and probabilities.

    type: the likeliest type of a red region; `unsure` where no type is likely; else the kind.
    Probabilities have four decimals, px one: regions.parquet has them in full. UTF-8 with a byte
    order mark; text in double quotes, made safe for spreadsheets by csv_text.
    """

    NAME = "regions.csv"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._types = pack.types
        self._rows = RegionRows()
        self._file = AtomicFile(folder / self.NAME)
        self._file.write(codecs.BOM_UTF8)
        self._writer = pa.csv.CSVWriter(self._file.file, _schema(pack.types))

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
            table = _table(self._rows.take(), self._types)
            with explain_os_errors(self._file.path):
                self._writer.write_table(table)


def _schema(types: Sequence[str]) -> Any:
    return pa.schema(
        [
            ("slide", pa.string()),
            ("field", pa.string()),
            ("region", pa.int32()),
            ("type", pa.string()),
            ("abnormal", pa.bool_()),
            ("abnormal_p", _PROBABILITY),
            ("flags", pa.string()),
            ("kind", pa.string()),
            ("cells_low", pa.int32()),
            ("cells_high", pa.int32()),
            *((f"p_{name}", _PROBABILITY) for name in types),
            *((f"has_{name}", pa.bool_()) for name in types),
            ("score", _PROBABILITY),
            *((name, _PX) for name in _BOX),
        ]
    )


def _table(rows: FieldRegions, types: Sequence[str]) -> Any:
    table = region_table(rows, types, text=csv_text)
    schema = _schema(types)

    def column(name: str, kind: Any) -> Any:
        if name == "type":
            return _types_of(rows, types)
        if not pa.types.is_decimal(kind):
            return table.column(name)
        exact = table.column(name).cast(pa.float64())
        return pc.round(exact, ndigits=kind.scale).cast(kind)

    return pa.table([column(each.name, each.type) for each in schema], schema=schema)


def _types_of(rows: FieldRegions, types: Sequence[str]) -> Any:
    """Return the column `type`: T types, unsure, and the kinds by their numbers."""
    kinds, flags = rows.joined("kinds"), rows.joined("flags")
    likeliest = rows.joined("probabilities").argmax(axis=1)
    unsure = (flags & RegionFlag.UNSURE) > 0
    code = np.where(unsure, len(types), likeliest)
    code = np.where(kinds == Kind.RED, code, len(types) + 1 + kinds)
    names = (*types, "unsure", *(kind.label for kind in Kind))
    return pa.array(names, pa.string()).take(pa.array(code))
