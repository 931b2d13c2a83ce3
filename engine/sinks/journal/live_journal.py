"""Keep a live run's journal: every outcome of a frame, sent to disk at once, so that a crash loses
next to nothing.

The tables of a run are complete only at its end: until then live.journal holds their content. It is
removed when they are in place; after a crash, `rbc-engine live --recover DIR` makes them from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rbc_engine.closing import Closing
from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.atomic import explain_os_errors
from rbc_engine.sinks.files.records import Record, RecordReader, RecordWriter, lock_for_reading
from rbc_engine.sinks.journal.stored_result import check_result, pack_result, unpack_result
from rbc_engine.sinks.out_folder import OutFolder
from rbc_engine.sinks.own_files import LIVE_JOURNAL
from rbc_engine.text import encodable
from rbc_engine.types.ends import Ended, FrameStatus

__all__ = ["LiveJournal", "read_live_journal"]

_SCHEMA = 3
_MOST_FRAMES = 1 << 62


class LiveJournal(Closing):
    """Write outcomes from one thread; see RecordWriter for what survives what. write raises
    OutputError if writing fails.
    """

    def __init__(self, out: OutFolder, head: dict[str, Any]) -> None:
        """Start a journal. out: exists by now. head: JSON; what is known of the run before its
        first frame.
        """
        self._lost = 0
        self._records = RecordWriter.create(out.path / LIVE_JOURNAL, {"schema": _SCHEMA, **head})
        self._records.publish()

    @property
    def notes(self) -> list[str]:
        """Return what its drive lacks, in one line each."""
        return self._records.notes

    def write(self, ended: Ended) -> None:
        header: dict[str, Any] = {
            "number": ended.number,
            "status": ended.status.value,
            "slide": encodable(ended.slide),
            "field": encodable(ended.field),
            "cause": encodable(ended.cause),
        }
        arrays: list[bytes] = []
        if ended.result is not None:
            header["result"], arrays = pack_result(ended.result)
        self._records.append(header, *arrays)

    def note_lost(self, count: int) -> None:
        """Record how many frames have been lost so far before they were submitted: they have no
        Ended.
        """
        if count != self._lost:
            self._lost = count
            self._records.append({"lost": count})

    def close(self) -> None:
        """Close the file and leave it. May be called again."""
        self._records.close()

    def remove(self) -> None:
        """Remove the journal, which is no longer needed once the tables are in place."""
        self._records.remove()


def read_live_journal(
    folder: Path, *, types: int | None = None
) -> tuple[dict[str, Any], Iterator[Ended | int]]:
    """Return the content of a journal: its head, then in order, read on demand, the outcomes of
    frames, and numbers: how many frames had been lost until then before they were submitted.

    types: of the pack, T; None if only the head is wanted.

    Raises OutputError if there is no journal, it is still being written, or it is of another
    version.
    """
    path = folder / LIVE_JOURNAL
    with explain_os_errors(path):
        file = path.open("rb")
    try:
        lock_for_reading(path, file)
    except OutputError:
        file.close()
        raise
    records = iter(RecordReader(file))
    head = next(records, Record(0, {}, b"")).header
    if head.get("schema") != _SCHEMA:
        file.close()
        raise OutputError(
            f"{path} is not a journal that this version reads (schema {head.get('schema')!r:.40}, "
            f"not {_SCHEMA}); recover it with the version that wrote it"
        )

    def ends() -> Iterator[Ended | int]:
        with file:
            for record in records:
                lost = record.header.get("lost")
                if type(lost) is int:
                    if not 0 <= lost < _MOST_FRAMES:
                        return
                    yield lost
                    continue
                try:
                    ended = _ended(record, types or 0)
                except ValueError:
                    return
                yield ended

    if types is None:
        file.close()
        return head, iter(())
    return head, ends()


def _ended(record: Record, types: int) -> Ended:
    """Convert a record; raise ValueError if it is inconsistent."""
    header = record.header
    try:
        result = None
        if "result" in header:
            result = unpack_result(header["result"], record.data, types=types)
            check_result(result)
        texts = [header[name] for name in ("slide", "field", "cause")]
        if not all(isinstance(text, str) and encodable(text) == text for text in texts):
            raise ValueError("slide, field and cause must be text")
        if type(header["number"]) is not int or not 0 <= header["number"] < _MOST_FRAMES:
            raise ValueError(f"number must be a whole number (got {header['number']!r:.40})")
        return Ended(
            number=header["number"],
            status=FrameStatus(header["status"]),
            slide=header["slide"],
            field=header["field"],
            cause=header["cause"],
            result=result,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an outcome of a frame: {error}") from error
