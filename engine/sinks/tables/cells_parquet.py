"""cells.parquet: one row a single cell."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.sinks.tables.regions_parquet import ROWS_AT_ONCE, kind_column, pack_metadata
from rbc_engine.sinks.tables.regions_table import kind_numbers, text_codes
from rbc_engine.text import encodable
from rbc_engine.types.cells import Cells
from rbc_engine.types.results import FieldResult

__all__ = ["CellsParquet", "CellsTable"]

_BOX = ("x0", "y0", "x1", "y1")
_SCHEMA = pa.schema(
    [
        ("slide", pa.string()),
        ("field", pa.string()),
        ("region", pa.int32()),
        *((name, pa.float32()) for name in (*_BOX, "score")),
        ("kind", pa.string()),
    ]
)


class CellsParquet:
    """Write cells.parquet. Columns: slide, field, region, x0, y0, x1, y1, score, kind.

    region: the row of the region that holds the cell, within its field. Fields and their regions
    are in the order of regions.parquet, the surest cell of a region first. Boxes and metadata are
    as there.
    """

    NAME = "cells.parquet"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._held: list[tuple[str, str, Cells]] = []
        self._count = 0
        self._file = AtomicFile(folder / self.NAME)
        self._writer = pq.ParquetWriter(
            self._file.file,
            _SCHEMA.with_metadata(pack_metadata(pack)),
            compression="zstd",
            use_dictionary=["slide", "field", "kind"],
        )

    def write(self, result: FieldResult) -> None:
        if result.regions is None or not len(result.regions.cells):
            return
        self._held.append((result.slide, result.field, result.regions.cells))
        self._count += len(result.regions.cells)
        if self._count >= ROWS_AT_ONCE:
            self._write_row_group()

    def complete(self) -> None:
        if self._writer.is_open:
            self._write_row_group()
            with explain_os_errors(self._file.path):
                self._writer.close()
        self._file.complete()

    def sha256(self) -> str:
        """Hash the file, once it is complete."""
        return self._file.sha256()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        with suppress(OSError, ValueError):  # writes the footer, to a disk that may be full
            self._writer.close()
        self._file.discard()

    def _write_row_group(self) -> None:
        if self._held:
            held, self._held, self._count = self._held, [], 0
            table = _table(held)
            with explain_os_errors(self._file.path):
                self._writer.write_table(table, row_group_size=ROWS_AT_ONCE)


class CellsTable:
    """Hold rows of a cells.parquet as arrays, as CellsParquet wrote them.

    slides, fields: int [N], index into slide_names and field_names, for each row.
    """

    def __init__(self, table: Any) -> None:
        """Read a pyarrow table with the columns of `schema`.

        Raises ValueError for an unknown kind.
        """
        self.slides, self.slide_names = text_codes(table.column("slide"))
        self.fields, self.field_names = text_codes(table.column("field"))
        self._cells = Cells(
            boxes=np.stack([table.column(name).to_numpy() for name in _BOX], axis=1),
            scores=table.column("score").to_numpy(),
            kinds=kind_numbers(table.column("kind")),
            region=table.column("region").to_numpy(),
        )

    def __len__(self) -> int:
        return len(self._cells)

    def cells(self, begin: int, end: int) -> Cells:
        """Take some rows."""
        here = slice(begin, end)
        return Cells(
            boxes=self._cells.boxes[here],
            scores=self._cells.scores[here],
            kinds=self._cells.kinds[here],
            region=self._cells.region[here],
        )

    @staticmethod
    def joined(parts: Sequence[Cells]) -> Cells:
        """Join parts of one field, in order."""
        if not parts:
            return Cells.empty()
        return Cells(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in Cells.__dataclass_fields__
            }
        )

    @staticmethod
    def schema() -> Any:
        """Return the columns of a file, without its metadata."""
        return _SCHEMA


def _table(held: Sequence[tuple[str, str, Cells]]) -> Any:
    slides, fields, cells = zip(*held, strict=True)
    of_row = pa.array(np.repeat(np.arange(len(held)), [len(each) for each in cells]))

    def joined(name: str) -> Any:
        return np.concatenate([getattr(each, name) for each in cells])

    columns = {
        "slide": pa.array(map(encodable, slides), pa.string()).take(of_row),
        "field": pa.array(map(encodable, fields), pa.string()).take(of_row),
        "region": joined("region"),
        **dict(zip(_BOX, joined("boxes").T, strict=True)),
        "score": joined("scores"),
        "kind": kind_column(joined("kinds")),
    }
    return pa.table(columns, schema=_SCHEMA)
