"""The folder of a finished run, read back: checked to be whole and unchanged, then field by field.

A folder may come from a stranger or have been edited by hand: nothing in it is believed before it was checked. Memory
grows with the fields, and with the largest two row groups of regions.parquet; not with the regions.
"""

from __future__ import annotations

import csv
import io
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rbc_engine.closing import Closing
from rbc_engine.errors import ResultsError
from rbc_engine.sinks.files.atomic import file_sha256
from rbc_engine.sinks.journal.stored_result import check_result
from rbc_engine.sinks.run_json import RUN_JSON, RunRecord, damaged
from rbc_engine.sinks.tables.fields_csv import FIELD_COLUMNS, FieldsCsv
from rbc_engine.sinks.tables.regions_parquet import RegionsParquet, RegionsTable
from rbc_engine.text import csv_text, encodable, plain_text
from rbc_engine.types.frames import FileStamp
from rbc_engine.types.results import FieldResult, Regions

__all__ = ["FieldRow", "FinishedRun"]

_MOST_CSV_BYTES = 1 << 30
_MOST_GROUP_BYTES = 1 << 31
_MOST_TYPES = 256
_MOST_CELL = 1 << 17
_GROUPS_HELD = 2


@dataclass(frozen=True)
class FieldRow:
    """A row of fields.csv, and where its regions begin in regions.parquet. regions: how many; None if it failed."""

    slide: str
    field: str
    path: str
    width: int
    height: int
    error: str | None
    regions: int | None
    saturated: bool
    um_per_px_estimated: float | None
    seconds: float
    stamp: FileStamp | None
    first_region: int

    @property
    def ok(self) -> bool:
        return self.error is None


class FinishedRun(Closing):
    """A finished run. Close it, or use it in a `with` block.

    run: what run.json holds. sha256: of run.json, fields.csv and regions.parquet. types: of the pack, in its order.
    abnormal_types: those of them that were taken as abnormal; None for a run of a version that did not say.
    rows: of fields.csv, in its order.

    Raises ResultsError if the folder holds no finished run, or one that is damaged or was changed since.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sha256: dict[str, str] = {}
        self.run = self._read_run()
        self.rows = list(self._read_fields())
        self._file = self._open(RegionsParquet.NAME)
        try:
            self._check_sha256(RegionsParquet.NAME, self._file)
            self._parquet = self._open_parquet()
            self.types = self._read_types()
            self.abnormal_types = self._read_abnormal_types()
            self._check_counts()
        except BaseException:
            self._file.close()
            raise
        groups = self._parquet.metadata
        lengths = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
        self._group_ends = np.cumsum([0, *lengths])
        self._groups: OrderedDict[int, RegionsTable] = OrderedDict()

    def results(self) -> Iterator[FieldResult]:
        """Of all fields, in order."""
        return (self.result(index) for index in range(len(self.rows)))

    def result(self, index: int) -> FieldResult:
        """Of a row. Reading rows in order reads every part of the file once."""
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
            um_per_px_estimated=row.um_per_px_estimated,
            seconds=row.seconds,
            stamp=row.stamp,
        )
        try:
            check_result(result)
        except ValueError as error:
            raise self._wrong(RegionsParquet.NAME, f"{row.field}: {error}") from error
        return result

    def close(self) -> None:
        self._file.close()

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
            reader = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""), strict=True)
            first_region = 0
            try:
                if next(reader, None) != list(FIELD_COLUMNS):
                    raise ValueError(f"its columns must be {', '.join(FIELD_COLUMNS)}")
                for cells in reader:
                    row = _field_row(cells, first_region)
                    first_region += row.regions or 0
                    yield row
            except (ValueError, csv.Error) as error:
                raise self._wrong(name, f"line {reader.line_num}: {error}") from error

    def _open_parquet(self) -> Any:
        try:
            parquet = pq.ParquetFile(self._file)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._wrong(RegionsParquet.NAME, f"no Parquet file ({error})") from error
        for index in range(parquet.metadata.num_row_groups):
            size = parquet.metadata.row_group(index).total_byte_size
            if not 0 <= size <= _MOST_GROUP_BYTES:
                raise self._wrong(
                    RegionsParquet.NAME,
                    f"row group {index} has {size} bytes, and at most {_MOST_GROUP_BYTES} are read",
                )
        return parquet

    def _read_types(self) -> tuple[str, ...]:
        schema = self._parquet.schema_arrow
        types = tuple(name[2:] for name in schema.names if name.startswith("p_"))
        if not 1 <= len(types) <= _MOST_TYPES or not schema.equals(RegionsTable.schema(types)):
            raise self._wrong(RegionsParquet.NAME, "its columns are not those that a run writes")
        sha256 = (
            (schema.metadata or {}).get(b"rbc_engine.pack.sha256", b"").decode("utf-8", "replace")
        )
        if sha256 != self.run.pack.sha256:
            raise self._wrong(
                RegionsParquet.NAME, f"it was made with a pack that {RUN_JSON} does not name"
            )
        return types

    def _read_abnormal_types(self) -> frozenset[str] | None:
        told = self.run.abnormal_types
        if told is None:
            return None
        if any(name not in self.types for name in told):
            raise self._wrong(
                RUN_JSON, f"abnormal_types must name types of the pack (got {list(told)!r:.80})"
            )
        return frozenset(told)

    def _check_counts(self) -> None:
        regions = sum(row.regions or 0 for row in self.rows)
        told = self.run.counts
        for what, count, other in (
            (f"fields in {FieldsCsv.NAME}", len(self.rows), told.fields),
            (
                f"failed fields in {FieldsCsv.NAME}",
                sum(not row.ok for row in self.rows),
                told.failed,
            ),
            (f"regions in {FieldsCsv.NAME}", regions, told.regions),
            (f"regions in {RegionsParquet.NAME}", self._parquet.metadata.num_rows, told.regions),
        ):
            if count != other:
                raise self._wrong(RUN_JSON, f"it counts {other} where there are {count} {what}")

    def _regions(self, row: FieldRow) -> Regions:
        count = row.regions or 0
        begin, end = row.first_region, row.first_region + count
        parts: list[Regions] = []
        group = int(np.searchsorted(self._group_ends, begin, "right")) - 1
        while begin < end:
            first, last = self._group_ends[group : group + 2].tolist()
            here = slice(begin - first, min(end, last) - first)
            table = self._group(group)
            done = count - (end - begin)
            self._check_rows(table, here, row, done)
            parts.append(table.regions(here.start, here.stop))
            begin, group = min(end, last), group + 1
        if len(parts) == 1:
            return parts[0]
        return _joined(parts, types=len(self.types))

    def _check_rows(self, table: RegionsTable, here: slice, row: FieldRow, done: int) -> None:
        """That rows are the regions of this field, numbered on from `done`."""
        for codes, names, name in (
            (table.slides, table.slide_names, row.slide),
            (table.fields, table.field_names, row.field),
        ):
            code = int(codes[here.start])
            if (codes[here] != code).any() or csv_text(names[code]) != csv_text(name):
                raise self._not_together(row)
        numbers = np.arange(done, done + here.stop - here.start)
        if not np.array_equal(table.numbers[here], numbers):
            raise self._not_together(row)

    def _not_together(self, row: FieldRow) -> ResultsError:
        return self._wrong(
            RegionsParquet.NAME,
            f"its rows of field {row.field!r} are not those of {FieldsCsv.NAME}",
        )

    def _group(self, index: int) -> RegionsTable:
        if index not in self._groups:
            try:
                read = self._parquet.read_row_group(index)
                if any(column.null_count for column in read.columns):
                    raise ValueError("a value is missing")
                table = RegionsTable(read, self.types)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise self._wrong(RegionsParquet.NAME, f"row group {index}: {error}") from error
            while len(self._groups) >= _GROUPS_HELD:
                self._groups.popitem(last=False)
            self._groups[index] = table
        self._groups.move_to_end(index)
        return self._groups[index]

    def _open(self, name: str) -> BinaryIO:
        path = self.folder / name
        try:
            if not path.is_file():
                raise ResultsError(
                    f"{self._shown(name)} is missing: {encodable(str(self.folder))} holds no finished run"
                )
            return path.open("rb")
        except OSError as error:
            raise ResultsError(
                f"cannot read {self._shown(name)}: {error.strerror or error}; make it readable"
            ) from error

    def _check_sha256(self, name: str, file: BinaryIO) -> None:
        self.sha256[name] = file_sha256(file)
        told = self.run.files.get(name)
        if told != self.sha256[name]:
            raise self._wrong(name, f"its sha256 is not the one in {RUN_JSON}")

    def _wrong(self, name: str, what: str) -> ResultsError:
        return damaged(self.folder / name, what)

    def _shown(self, name: str) -> str:
        return encodable(str(self.folder / name))


def _field_row(cells: list[str], first_region: int) -> FieldRow:
    """Raises ValueError for a row that no run writes."""
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
        um_per_px_estimated=float(by_name["um_per_px_estimated"])
        if by_name["um_per_px_estimated"]
        else None,
        seconds=float(by_name["seconds"]),
        stamp=_stamp(by_name["bytes"], by_name["modified"]),
        first_region=first_region,
    )


def _count(cell: str) -> int:
    count = int(cell)
    if not 0 <= count < 2**31:
        raise ValueError(f"regions must be at least 0 (got {cell!r:.40})")
    return count


def _stamp(size: str, modified: str) -> FileStamp | None:
    if not size and not modified:
        return None
    if not modified.endswith("Z"):
        raise ValueError(f"modified must be a time in UTC (got {modified!r:.40})")
    time_ns = np.datetime64(modified[:-1], "ns").astype(np.int64)
    return FileStamp(int(size), int(time_ns))


def _joined(parts: list[Regions], *, types: int) -> Regions:
    if not parts:
        return RegionsTable.empty(types)
    return Regions(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in Regions.__dataclass_fields__
        }
    )
