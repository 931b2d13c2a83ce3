"""Keep a run's journal: the result of every field, sent to disk as soon as it exists.

The tables of a run appear at its end: until then run.journal holds their content. It is removed
when they are in place; `rbc-engine run --resume` resumes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from rbc_engine.closing import Closing
from rbc_engine.errors import OutputError, ResultsError
from rbc_engine.sinks.files.atomic import explain_os_errors
from rbc_engine.sinks.files.records import (
    Record,
    RecordReader,
    RecordWriter,
    lock_for_reading,
    read_record,
)
from rbc_engine.sinks.journal.stored_result import check_result, pack_result, unpack_result
from rbc_engine.sinks.out_folder import OutFolder
from rbc_engine.sinks.own_files import RUN_JOURNAL
from rbc_engine.text import encodable
from rbc_engine.types.frames import FieldRef, FileStamp
from rbc_engine.types.results import FieldResult

__all__ = ["FieldKey", "RunJournal", "StoredField", "field_key"]

_SCHEMA = 2

FieldKey = tuple[str, str]
"""Slide and field, as a file can hold them."""


@dataclass(frozen=True)
class StoredField:
    """Locate the last result of a field, and identify its file."""

    offset: int
    ok: bool
    path: str
    stamp: FileStamp | None


class RunJournal(Closing):
    """Write and read results from one thread; see RecordWriter for what survives what.

    stored: the last result of each field, by field_key.
    cut_bytes: the incomplete record at the end of a reopened journal.

    write, create and reopen raise OutputError if writing fails.
    """

    def __init__(
        self,
        records: RecordWriter,
        stored: dict[FieldKey, StoredField],
        *,
        types: int,
        cut_bytes: int = 0,
    ) -> None:
        """Take over the records; see create and reopen."""
        self.stored = stored
        self.cut_bytes = cut_bytes
        self._records = records
        self._types = types
        self._reader: BinaryIO | None = None

    @classmethod
    def create(
        cls,
        out: OutFolder,
        head: dict[str, Any],
        *,
        types: int,
        results: Iterable[FieldResult] = (),
    ) -> RunJournal:
        """Make a new journal in place of any old one, as a whole with all of `results`.

        head: JSON; what is known of the run before its first field. types: of the pack, T.
        """
        records = RecordWriter.create(out.path / RUN_JOURNAL, {"schema": _SCHEMA, "run": head})
        journal = cls(records, {}, types=types)
        try:
            for result in results:
                journal.write(result)
            records.publish()
        except BaseException:
            records.remove()
            raise
        return journal

    @classmethod
    def reopen(
        cls, out: OutFolder, *, types: int, check: Callable[[dict[str, Any]], object]
    ) -> RunJournal:
        """Continue a journal after its last whole record.

        check: is given the head before anything is changed, and raises if it must not be resumed.

        Raises ResultsError if it is not a journal of this version; OutputError if it is still being
        written.
        """
        path = out.path / RUN_JOURNAL
        stored: dict[FieldKey, StoredField] = {}
        with explain_os_errors(path):
            file = path.open("rb")
        with file:
            lock_for_reading(path, file)
            reader = RecordReader(file)
            records = iter(reader)
            head = next(records, Record(0, {}, b"")).header
            if head.get("schema") in range(1, _SCHEMA):
                raise ResultsError(
                    f"{path} has schema {head['schema']}, and this program reads {_SCHEMA}: an "
                    "earlier version wrote it, which knew neither kinds nor cells; resume it with "
                    "that version, or pass --overwrite to run everything again"
                )
            if head.get("schema") != _SCHEMA or not isinstance(head.get("run"), dict):
                raise ResultsError(
                    f"{path} is damaged at its beginning, or not a journal that this version "
                    f"reads; pass --overwrite to run everything again"
                )
            check(head["run"])
            end = reader.end
            for record in records:
                try:
                    result = unpack_result(record.header, record.data, types=types)
                    check_result(result)
                except ValueError:
                    break
                stored[field_key(result)] = _stored(record.offset, result)
                end = reader.end
            cut_bytes = path.stat().st_size - end
        return cls(RecordWriter.reopen(path, end=end), stored, types=types, cut_bytes=cut_bytes)

    def write(self, result: FieldResult) -> None:
        header, arrays = pack_result(result)
        offset = self._records.append(header, *arrays)
        self.stored[field_key(result)] = _stored(offset, result)

    def read(self, key: FieldKey) -> FieldResult:
        """Return the last result of a field. Raises ResultsError if the file was changed
        meanwhile.
        """
        if self._reader is None:
            with explain_os_errors(self._records.path):
                self._reader = self._records.path.open("rb")
        record = read_record(self._reader, self.stored[key].offset)
        with suppress(ValueError):
            if record is not None:
                return unpack_result(record.header, record.data, types=self._types)
        raise ResultsError(f"{self._records.path} was changed while it was read; run it again")

    @property
    def notes(self) -> list[str]:
        """Return what its drive lacks, in one line each."""
        return self._records.notes

    @property
    def done(self) -> int:
        """Return how many fields have a result that did not fail."""
        return sum(field.ok for field in self.stored.values())

    def close(self) -> None:
        """Close the file and leave it, unless there is nothing in it to resume from. May be called
        again.
        """
        if self._reader is not None:
            self._reader.close()
        if self.done:
            self._records.close()
        else:
            with suppress(OutputError):
                self._records.remove()

    def remove(self) -> None:
        """Remove the journal, which is no longer needed once the tables are in place."""
        self._records.remove()


def field_key(named: FieldRef | FieldResult) -> FieldKey:
    return encodable(named.slide), encodable(named.field)


def _stored(offset: int, result: FieldResult) -> StoredField:
    return StoredField(offset, result.ok, result.path, result.stamp)
