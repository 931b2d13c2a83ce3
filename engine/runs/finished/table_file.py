"""A Parquet file of a finished run, read row group by row group."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rbc_engine.closing import Closing
from rbc_engine.errors import ResultsError
from rbc_engine.text import csv_text

__all__ = ["MOST_ROWS", "FieldTable", "TableFile", "rows_are_of"]

MOST_ROWS = 4_000_000
"""Rows that are held at once, of a row group or of a field: a few bytes of a file may stand for any number of them."""

_MOST_GROUP_BYTES = 1 << 31
_GROUPS_HELD = 2


class FieldTable(Protocol):
    """Hold rows that name their field: RegionsTable and CellsTable."""

    slides: npt.NDArray[np.int32]
    slide_names: list[str]
    fields: npt.NDArray[np.int32]
    field_names: list[str]


Table = TypeVar("Table", bound=FieldTable)


class TableFile(Closing, Generic[Table]):
    """Read a Parquet table row group by row group, in the memory of the largest two.

    It takes the file over: close it, or use it in a `with` block.

    rows: how many there are. schema: of the file, as Arrow has it.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        make: Callable[[Any], Table],
        wrong: Callable[[str], ResultsError],
    ) -> None:
        """Open the table in a file.

        make: builds a table of a row group; may raise ValueError. wrong: makes the error to raise.

        Raises ResultsError if it is no Parquet file, or has row groups that are too large.
        """
        self._file = file
        self._make = make
        self._wrong = wrong
        try:
            self._parquet = pq.ParquetFile(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise wrong(f"no Parquet file ({error})") from error
        metadata = self._parquet.metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        for index, group in enumerate(groups):
            if not 0 <= group.total_byte_size <= _MOST_GROUP_BYTES:
                raise wrong(
                    f"row group {index} has {group.total_byte_size} bytes, and at most "
                    f"{_MOST_GROUP_BYTES} are read"
                )
            if not 0 <= group.num_rows <= MOST_ROWS:
                raise wrong(
                    f"row group {index} has {group.num_rows} rows, and at most {MOST_ROWS} are read at once"
                )
        self._ends = np.cumsum([0, *(group.num_rows for group in groups)])
        self._held: OrderedDict[int, Table] = OrderedDict()

    @property
    def rows(self) -> int:
        return int(self._parquet.metadata.num_rows)

    @property
    def schema(self) -> Any:
        return self._parquet.schema_arrow

    def pack_sha256(self) -> str:
        """Return the sha256 of the pack that the file names; '' if it names none."""
        stated = (self.schema.metadata or {}).get(b"rbc_engine.pack.sha256", b"")
        return str(stated.decode("utf-8", "replace"))

    def parts(self, begin: int, end: int) -> Iterator[tuple[Table, slice]]:
        """Find rows begin..end: tables in order, and which of their rows.

        Raises ResultsError for a damaged group.
        """
        group = int(np.searchsorted(self._ends, begin, "right")) - 1
        while begin < end:
            first, last = self._ends[group : group + 2].tolist()
            yield self._group(group), slice(begin - first, min(end, last) - first)
            begin, group = min(end, last), group + 1

    def close(self) -> None:
        self._file.close()

    def _group(self, index: int) -> Table:
        if index not in self._held:
            try:
                read = self._parquet.read_row_group(index)
                if any(column.null_count for column in read.columns):
                    raise ValueError("a value is missing")
                table = self._make(read)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise self._wrong(f"row group {index}: {error}") from error
            while len(self._held) >= _GROUPS_HELD:
                self._held.popitem(last=False)
            self._held[index] = table
        self._held.move_to_end(index)
        return self._held[index]


def rows_are_of(table: FieldTable, here: slice, *, slide: str, field: str) -> bool:
    """Return whether all rows are of one field, by its names as a CSV file spells them."""
    return all(
        not (codes[here] != codes[here.start]).any()
        and csv_text(names[int(codes[here.start])]) == csv_text(name)
        for codes, names, name in (
            (table.slides, table.slide_names, slide),
            (table.fields, table.field_names, field),
        )
    )
