"""Write files of records that a crash may cut short but cannot falsify: the basis of journals.

Each record is a magic, the length and the CRC-32 of what follows: a header in JSON, its length
before it, then bytes.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rbc_engine.closing import Closing
from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.atomic import explain_os_errors, hidden_beside
from rbc_engine.sinks.files.drive import NO_LOCKS, NO_SYNC, lock_file, sync_folder

__all__ = ["Record", "RecordReader", "RecordWriter", "lock_for_reading", "read_record"]

_MAGIC = b"RBCJ"
_FRAME = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")
_MOST_BYTES = (1 << 32) - 1
_SYNC_S = 1.0


@dataclass(frozen=True, eq=False)
class Record:
    """Hold a record. offset: in its file."""

    offset: int
    header: dict[str, Any]
    data: bytes


class RecordWriter(Closing):
    """Write records from one thread. Every record is with the operating system when `append`
    returns, and so survives the program; about a second later it is on disk, and so survives a
    power cut.

    The file is locked until it is closed, if its drive has locks. notes: what its drive lacks.
    publish, append and sync raise OutputError if writing fails.
    """

    def __init__(self, path: Path, file: BinaryIO, *, beside: Path | None = None) -> None:
        """Take over a file; see create and reopen. file: unbuffered and locked. beside: its hidden
        name, if not yet at `path`.
        """
        self.path = path
        self._file = file
        self.notes: list[str] = []
        self._beside = beside
        self._failure: OSError | None = None
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._syncer: threading.Thread | None = None

    @classmethod
    def create(cls, path: Path, head: dict[str, Any]) -> RecordWriter:
        """Create a file under a hidden name, with `head` as its first record; `publish` puts it in
        place of the one at `path`, if any. Raises OutputError if that one is still being written.
        """
        with suppress(FileNotFoundError), path.open("rb") as old:
            lock_for_reading(path, old)
        beside = hidden_beside(path)
        with explain_os_errors(path):
            file = beside.open("xb", buffering=0)
            locked = lock_file(file, shared=False)
        writer = cls(path, file, beside=beside)
        writer._note_lock(locked)
        try:
            writer.append(head)
        except BaseException:
            writer.remove()
            raise
        return writer

    @classmethod
    def reopen(cls, path: Path, *, end: int) -> RecordWriter:
        """Continue a file after the byte `end`; the rest is cut off. Raises OutputError if it is
        still being written.
        """
        with explain_os_errors(path):
            file = path.open("r+b", buffering=0)
        try:
            locked = lock_file(file, shared=False)
        except BlockingIOError as error:
            file.close()
            raise OutputError(_still_written(path)) from error
        with explain_os_errors(path):
            file.truncate(end)
            file.seek(end)
        writer = cls(path, file)
        writer._note_lock(locked)
        return writer

    def publish(self) -> None:
        """Write the records to disk, then move the file into place."""
        if self._beside is None:
            return
        with explain_os_errors(self.path):
            os.fdatasync(self._file.fileno())
            self._beside.replace(self.path)
            self._beside = None
            if not sync_folder(self.path.parent):
                self.notes.append(NO_SYNC)

    def append(self, header: dict[str, Any], *data: bytes) -> int:
        """Append a record and return its offset. A record that cannot be written whole ends the
        file.
        """
        text = json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
        parts = [_LENGTH.pack(len(text)), text, *data]
        length = sum(map(len, parts))
        if length > _MOST_BYTES:
            raise OutputError(
                f"{self.path}: a field with {length} bytes of regions does not fit into a record "
                f"of it ({_MOST_BYTES}); cut the image into fields"
            )
        checksum = 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        record = memoryview(b"".join((_FRAME.pack(_MAGIC, length, checksum), *parts)))
        with explain_os_errors(self.path):
            if self._failure is not None:
                raise self._failure
            offset = self._file.tell()
            while record:  # a signal, or a disk that is nearly full, may cut a write short
                record = record[self._file.write(record) :]
        self._sync_soon()
        return offset

    def close(self) -> None:
        """Close the file and leave it, unless it was never published. May be called again."""
        self._closed.set()
        self._dirty.set()
        if self._syncer is not None:
            self._syncer.join()
        with suppress(OSError):
            if not self._file.closed:
                os.fdatasync(self._file.fileno())
        with suppress(OSError):
            self._file.close()
        if self._beside is not None:
            with suppress(OSError):
                self._beside.unlink()

    def remove(self) -> None:
        """Remove the file, which is no longer needed."""
        self.close()
        if self._beside is None:
            with explain_os_errors(self.path):
                self.path.unlink(missing_ok=True)

    def _note_lock(self, locked: bool) -> None:
        if not locked:
            self.notes.append(NO_LOCKS)

    def _sync_soon(self) -> None:
        self._dirty.set()
        if self._syncer is None and self._beside is None:
            self._syncer = threading.Thread(target=self._sync, name="rbc-journal", daemon=True)
            self._syncer.start()

    def _sync(self) -> None:
        """Sync in a thread of its own, so that the last record before a long wait is on disk
        too.
        """
        while True:
            self._dirty.wait()
            if self._closed.wait(_SYNC_S):
                return
            self._dirty.clear()
            try:
                os.fdatasync(self._file.fileno())
            except OSError as error:
                self._failure = error
                return


class RecordReader:
    """Iterate over the records of a file from its beginning, up to the first that is cut short or
    damaged.

    end: offset after the last record that was read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.end = 0

    def __iter__(self) -> Iterator[Record]:
        size = os.fstat(self._file.fileno()).st_size
        while True:
            record = _parse(self._file.fileno(), self.end, size)
            if record is None:
                return
            self.end += record[1]
            yield record[0]


def read_record(file: BinaryIO, offset: int) -> Record | None:
    """Return the record at an offset; None if there is none, or it is damaged."""
    record = _parse(file.fileno(), offset, os.fstat(file.fileno()).st_size)
    return None if record is None else record[0]


def lock_for_reading(path: Path, file: BinaryIO) -> None:
    """Raise OutputError if the file is still being written."""
    try:
        lock_file(file, shared=True)
    except BlockingIOError as error:
        raise OutputError(_still_written(path)) from error


def _still_written(path: Path) -> str:
    return f"{path} is still being written; wait for that run to end"


def _parse(descriptor: int, offset: int, size: int) -> tuple[Record, int] | None:
    """Return the record at an offset, and its length with everything."""
    frame = os.pread(descriptor, _FRAME.size, offset)
    if len(frame) < _FRAME.size:
        return None
    magic, length, checksum = _FRAME.unpack(frame)
    if magic != _MAGIC or not _LENGTH.size <= length <= size - offset - _FRAME.size:
        return None
    body = os.pread(descriptor, length, offset + _FRAME.size)
    if len(body) < length or zlib.crc32(body) != checksum:
        return None
    (text_length,) = _LENGTH.unpack_from(body)
    begin = _LENGTH.size
    try:
        header = json.loads(body[begin : begin + text_length])
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    return Record(offset, header, body[begin + text_length :]), _FRAME.size + length
