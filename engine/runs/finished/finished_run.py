"""Read back the folder of a finished run: checked to be complete and unchanged, then field by
field.

A folder may come from an untrusted source or have been edited by hand: nothing in it is trusted
before it is checked. Memory grows with the fields, and with the largest two row groups of
regions.parquet and cells.parquet; not with the regions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from rbc_engine.closing import Closing
from rbc_engine.errors import ResultsError
from rbc_engine.runs.finished.table_file import MOST_ROWS, FieldTable, TableFile, rows_are_of
from rbc_engine.sinks.files.atomic import file_sha256
from rbc_engine.sinks.journal.stored_result import check_result
from rbc_engine.sinks.run_json import RUN_JSON, RunRecord, damaged
from rbc_engine.sinks.tables.cells_parquet import CellsParquet, CellsTable
from rbc_engine.sinks.tables.fields_csv import FIELD_COLUMNS, FieldsCsv
from rbc_engine.sinks.tables.regions_parquet import RegionsParquet
from rbc_engine.sinks.tables.regions_table import RegionsTable
from rbc_engine.text import encodable, plain_text
from rbc_engine.types.frames import FileStamp
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import SCALE_SOURCES, FieldFlag, FieldResult, ScaleSource

__all__ = ["FieldRow", "FinishedRun"]

_MOST_CSV_BYTES = 1 << 30
_MOST_TYPES = 256
_MOST_CELL = 1 << 17
_OTHER_COLUMNS = "its columns are not those that a run writes"

Table = TypeVar("Table", bound=FieldTable)


@dataclass(frozen=True)
class FieldRow:
    """Hold a row of fields.csv, and where its rows begin in regions.parquet and cells.parquet.

    regions: how many; None if the field failed.
    """

    slide: str
    field: str
    path: str
    width: int
    height: int
    error: str | None
    regions: int | None
    saturated: bool
    um_per_px: float | None
    um_per_px_from: ScaleSource
    unfamiliar_distance: float | None
    uncovered: float | None
    flags: FieldFlag
    seconds: float
    stamp: FileStamp | None
    first_region: int
    cells: int
    first_cell: int

    @property
    def ok(self) -> bool:
        return self.error is None


class FinishedRun(Closing):
    """Read a finished run. Close it, or use it in a `with` block.

    run: what run.json holds. sha256: of run.json, fields.csv, regions.parquet and cells.parquet.
    types: of the pack, in its order.
    abnormal_types: those counted as abnormal; None for a run of a version that did not state it.
    rows: of fields.csv, in its order.

    Raises ResultsError if the folder holds no finished run, or one that is damaged or was changed
    since.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sha256: dict[str, str] = {}
        self.run = self._read_run()
        self.rows = list(self._read_fields())
        self._regions_file = self._open_table(
            RegionsParquet.NAME, lambda table: RegionsTable(table, self.types)
        )
        try:
            self._cells_file = self._open_table(CellsParquet.NAME, CellsTable)
        except BaseException:
            self._regions_file.close()
            raise
        try:
            self.types = self._read_types()
            self.abnormal_types = self._read_abnormal_types()
            self._check_counts()
        except BaseException:
            self.close()
            raise

    def results(self) -> Iterator[FieldResult]:
        """Yield the results of all fields, in order."""
        return (self.result(index) for index in range(len(self.rows)))

    def result(self, index: int) -> FieldResult:
        """Return the result of a row. Reading rows in order reads every part of the file once."""
        row = self.rows[index]
        result = FieldResult(
            slide=row.slide,
            field=row.field,
            path=row.path,
            width=row.width,
            height=row.height,
            regions=None if row.regions is None else self._regions(row),
            error=row.error,
            saturated=row.saturated,
            um_per_px=row.um_per_px,
            um_per_px_from=row.um_per_px_from,
            unfamiliar_distance=row.unfamiliar_distance,
            uncovered=row.uncovered,
            flags=row.flags,
            seconds=row.seconds,
            stamp=row.stamp,
        )
        try:
            check_result(result)
        except ValueError as error:
            raise self._wrong(RegionsParquet.NAME, f"{row.field}: {error}") from error
        return result

    def close(self) -> None:
        self._regions_file.close()
        self._cells_file.close()

    def _read_run(self) -> RunRecord:
        with self._open(RUN_JSON) as file:
            self.sha256[RUN_JSON] = file_sha256(file)
            file.seek(0)
            return RunRecord.load(file, path=self.folder / RUN_JSON)

    def _read_fields(self) -> Iterator[FieldRow]:
        name = FieldsCsv.NAME
        with self._open(name) as file:
            self._check_sha256(name, file)
            if file.tell() > _MOST_CSV_BYTES:
                raise self._wrong(name, f"it is larger than {_MOST_CSV_BYTES} bytes")
            file.seek(0)
            csv.field_size_limit(_MOST_CELL)
            reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
            first_region = first_cell = 0
            try:
                if next(reader, None) != list(FIELD_COLUMNS):
                    raise ValueError(f"its columns must be {', '.join(FIELD_COLUMNS)}")
                for cells in reader:
                    row = _field_row(cells, first_region, first_cell)
                    first_region += row.regions or 0
                    first_cell += row.cells
                    yield row
            except (ValueError, OverflowError, csv.Error) as error:
                raise self._wrong(name, f"line {reader.line_num}: {error}") from error

    def _open_table(self, name: str, make: Callable[[Any], Table]) -> TableFile[Table]:
        file = self._open(name)
        try:
            self._check_sha256(name, file)
            return TableFile(file, make=make, wrong=partial(self._wrong, name))
        except BaseException:
            file.close()
            raise

    def _read_types(self) -> tuple[str, ...]:
        schema = self._regions_file.schema
        types = tuple(name[2:] for name in schema.names if name.startswith("p_"))
        if not 1 <= len(types) <= _MOST_TYPES or not schema.equals(RegionsTable.schema(types)):
            raise self._wrong(RegionsParquet.NAME, _OTHER_COLUMNS)
        if not self._cells_file.schema.equals(CellsTable.schema()):
            raise self._wrong(CellsParquet.NAME, _OTHER_COLUMNS)
        for name, file in (
            (RegionsParquet.NAME, self._regions_file),
            (CellsParquet.NAME, self._cells_file),
        ):
            if file.pack_sha256() != self.run.pack.sha256:
                raise self._wrong(name, f"it was made with a pack that {RUN_JSON} does not name")
        return types

    def _read_abnormal_types(self) -> frozenset[str] | None:
        stated = self.run.abnormal_types
        if stated is None:
            return None
        if any(name not in self.types for name in stated):
            raise self._wrong(
                RUN_JSON, f"abnormal_types must name types of the pack (got {list(stated)!r:.80})"
            )
        return frozenset(stated)

    def _check_counts(self) -> None:
        regions = sum(row.regions or 0 for row in self.rows)
        stated = self.run.counts
        for what, count, other in (
            (f"fields in {FieldsCsv.NAME}", len(self.rows), stated.fields),
            (
                f"failed fields in {FieldsCsv.NAME}",
                sum(not row.ok for row in self.rows),
                stated.failed,
            ),
            (f"regions in {FieldsCsv.NAME}", regions, stated.regions),
            (f"regions in {RegionsParquet.NAME}", self._regions_file.rows, stated.regions),
        ):
            if count != other:
                raise self._wrong(RUN_JSON, f"it counts {other} where there are {count} {what}")
        cells = sum(row.cells for row in self.rows)
        if cells != self._cells_file.rows:
            raise self._wrong(
                CellsParquet.NAME,
                f"it has {self._cells_file.rows} cells, and {FieldsCsv.NAME} counts {cells}",
            )

    def _regions(self, row: FieldRow) -> Regions:
        parts: list[Regions] = []
        done = 0
        for table, here in self._regions_file.parts(
            row.first_region, row.first_region + (row.regions or 0)
        ):
            numbers = np.arange(done, done + here.stop - here.start)
            of_row = rows_are_of(table, here, slide=row.slide, field=row.field)
            if not of_row or not np.array_equal(table.numbers[here], numbers):
                raise self._not_together(RegionsParquet.NAME, row)
            parts.append(table.regions(here.start, here.stop))
            done += len(numbers)
        regions = Regions.concatenate(parts) if parts else Regions.empty(len(self.types))
        cells = []
        for table_of_cells, here in self._cells_file.parts(
            row.first_cell, row.first_cell + row.cells
        ):
            if not rows_are_of(table_of_cells, here, slide=row.slide, field=row.field):
                raise self._not_together(CellsParquet.NAME, row)
            cells.append(table_of_cells.cells(here.start, here.stop))
        try:
            return replace(regions, cells=CellsTable.joined(cells))
        except ValueError as error:
            raise self._wrong(CellsParquet.NAME, f"{row.field}: {error}") from error

    def _not_together(self, name: str, row: FieldRow) -> ResultsError:
        return self._wrong(
            name, f"its rows of field {row.field!r} are not those of {FieldsCsv.NAME}"
        )

    def _open(self, name: str) -> BinaryIO:
        path = self.folder / name
        try:
            if not path.is_file():
                raise ResultsError(
                    f"{self._shown(name)} is missing: {encodable(str(self.folder))} holds no "
                    "finished run"
                )
            return path.open("rb")
        except OSError as error:
            raise ResultsError(
                f"cannot read {self._shown(name)}: {error.strerror or error}; make it readable"
            ) from error

    def _check_sha256(self, name: str, file: BinaryIO) -> None:
        self.sha256[name] = file_sha256(file)
        stated = self.run.files.get(name)
        if stated != self.sha256[name]:
            raise self._wrong(name, f"its sha256 is not the one in {RUN_JSON}")

    def _wrong(self, name: str, what: str) -> ResultsError:
        return damaged(self.folder / name, what)

    def _shown(self, name: str) -> str:
        return encodable(str(self.folder / name))


def _field_row(cells: list[str], first_region: int, first_cell: int) -> FieldRow:
    """Read a row of fields.csv. Raises ValueError for one that no run writes."""
    if len(cells) != len(FIELD_COLUMNS):
        raise ValueError(f"{len(cells)} cells instead of {len(FIELD_COLUMNS)}")
    by_name = dict(zip(FIELD_COLUMNS, cells, strict=True))
    status = by_name["status"]
    error = plain_text(by_name["error"])
    if status not in ("done", "failed") or (status == "failed") != bool(error):
        raise ValueError("status must be done, or failed with an error")
    if by_name["saturated"] not in ("", "true", "false"):
        raise ValueError(f"saturated must be true or false (got {by_name['saturated']!r:.40})")
    return FieldRow(
        slide=plain_text(by_name["slide"]),
        field=plain_text(by_name["field"]),
        path=plain_text(by_name["path"]),
        width=int(by_name["width"] or 0),
        height=int(by_name["height"] or 0),
        error=error if status == "failed" else None,
        regions=_count(by_name["regions"]) if status == "done" else None,
        saturated=by_name["saturated"] == "true",
        um_per_px=_number(by_name["um_per_px"]),
        um_per_px_from=_scale_source(by_name["um_per_px_from"], done=status == "done"),
        unfamiliar_distance=_number(by_name["unfamiliar_distance"]),
        uncovered=_number(by_name["uncovered"]),
        flags=FieldFlag.of(by_name["flags"]),
        seconds=float(by_name["seconds"]),
        stamp=_stamp(by_name["bytes"], by_name["modified"]),
        first_region=first_region,
        cells=_count(by_name["cells"]) if status == "done" else 0,
        first_cell=first_cell,
    )


def _count(cell: str) -> int:
    count = int(cell)
    if not 0 <= count <= MOST_ROWS:
        raise ValueError(f"regions and cells must lie in 0..{MOST_ROWS} (got {cell!r:.40})")
    return count


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _scale_source(cell: str, *, done: bool) -> ScaleSource:
    if not done and not cell:
        return "assumed"
    for source in SCALE_SOURCES:
        if cell == source:
            return source
    raise ValueError(f"um_per_px_from must be one of {', '.join(SCALE_SOURCES)} (got {cell!r:.40})")


def _stamp(size: str, modified: str) -> FileStamp | None:
    if not size and not modified:
        return None
    if not modified.endswith("Z"):
        raise ValueError(f"modified must be a time in UTC (got {modified!r:.40})")
    time_ns = np.datetime64(modified[:-1], "ns").astype(np.int64)
    return FileStamp(int(size), int(time_ns))
