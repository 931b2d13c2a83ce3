"""regions.parquet: one row a region."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from rbc_engine.pack import Pack
from rbc_engine.sinks.atomic import AtomicFile, explain_os_errors
from rbc_engine.sinks.region_rows import ROWS_AT_ONCE, RegionRows, region_schema, region_table
from rbc_engine.types import FieldResult

__all__ = ["RegionsParquet"]


class RegionsParquet:
    """Columns slide, field, region, x0, y0, x1, y1, score, p_<type>…, has_<type>…, abnormal_p, abnormal, cells_low,
    cells_high, flags.

    region counts from 0 within its field. Boxes are px of the full-resolution image, origin top left. flags are
    names joined by ';'. The file's metadata name the pack, under rbc_engine.pack.name, .version and .sha256.
    """

    NAME = "regions.parquet"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._types = pack.types
        self._rows = RegionRows()
        self._file = AtomicFile(folder / self.NAME)
        described = {"name": pack.name, "version": pack.manifest.version, "sha256": pack.sha256}
        self._writer = pq.ParquetWriter(
            self._file.file,
            region_schema(pack.types).with_metadata(
                {f"rbc_engine.pack.{key}": value for key, value in described.items()}
            ),
            compression="zstd",
            use_dictionary=["slide", "field", "flags"],
        )

    def write(self, result: FieldResult) -> None:
        self._rows.add(result)
        if len(self._rows) >= ROWS_AT_ONCE:
            self._write_row_group()

    def complete(self) -> None:
        if self._writer.is_open:
            self._write_row_group()
            with explain_os_errors(self._file.path):
                self._writer.close()
        self._file.complete()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        with suppress(OSError, ValueError):  # writes the footer, to a disk that may be full
            self._writer.close()
        self._file.discard()

    def _write_row_group(self) -> None:
        if len(self._rows):
            table = region_table(self._rows.take(), self._types)
            with explain_os_errors(self._file.path):
                self._writer.write_table(table, row_group_size=len(table))
