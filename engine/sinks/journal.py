"""A live run's journal: every end of a frame, on its way to the disk at once, so that a crash loses next to nothing.

The tables of a run are whole only at its end: until then live.journal holds what they will. It is removed when they are
in place; after a crash, `rbc-engine live --recover DIR` makes them from it.

A file of records, each a magic, the length and the CRC-32 of what follows: a header in JSON, its length before it, then
the arrays of Regions as they lie in memory. A record that is cut short or damaged ends the reading.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.accounting import Ended, FrameStatus
from rbc_engine.closing import Closing
from rbc_engine.errors import OutputError
from rbc_engine.sinks.atomic import explain_os_errors
from rbc_engine.sinks.text import encodable
from rbc_engine.types import FieldResult, Regions

__all__ = ["JOURNAL", "Journal", "read_journal"]

JOURNAL = "live.journal"

_SCHEMA = 1
_MAGIC = b"RBCJ"
_FRAME = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")
_MOST_BYTES = 1 << 28
_SYNC_S = 1.0


class Journal(Closing):
    """Written by one thread. Every record is with the operating system when `write` returns, and so outlives the
    program; on the disk, and so outliving a power cut, a second later at most, if `sync` is called that often.

    write and sync raise OutputError if the disk refuses.
    """

    def __init__(self, folder: Path, head: dict[str, Any]) -> None:
        """folder: exists. head: JSON; what there is to know of the run before its first frame."""
        self._path = folder / JOURNAL
        self._synced_s = time.monotonic()
        self._lost = 0
        with explain_os_errors(self._path):
            # Held until the file is closed: --recover must not take a journal that is still being written.
            self._file = self._path.open("wb", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._append({"schema": _SCHEMA, **head}, b"")

    def write(self, ended: Ended) -> None:
        result = ended.result
        header: dict[str, Any] = {
            "number": ended.number,
            "status": ended.status.value,
            "slide": encodable(ended.slide),
            "field": encodable(ended.field),
            "cause": encodable(ended.cause),
        }
        arrays = b""
        if result is not None:
            header |= {
                "path": encodable(result.path),
                "width": result.width,
                "height": result.height,
                "error": None if result.error is None else encodable(result.error),
                "saturated": result.saturated,
                "seconds": result.seconds,
            }
            if result.regions is not None:
                regions = result.regions
                header["regions"] = len(regions)
                arrays = b"".join(getattr(regions, name).tobytes() for name in _ARRAYS)
        self._append(header, arrays)

    def note_lost(self, count: int) -> None:
        """How many frames have been lost so far before they were submitted: they have no Ended."""
        if count != self._lost:
            self._lost = count
            self._append({"lost": count}, b"")

    def sync(self) -> None:
        """Brings what was written to the disk, if the last time was a second ago."""
        if time.monotonic() - self._synced_s >= _SYNC_S:
            with explain_os_errors(self._path):
                os.fdatasync(self._file.fileno())
            self._synced_s = time.monotonic()

    def close(self) -> None:
        """Closes the file and leaves it. May be called again."""
        with suppress(OSError):
            self._file.close()

    def remove(self) -> None:
        """The tables are in place: the journal is of no more use."""
        self.close()
        with explain_os_errors(self._path):
            self._path.unlink(missing_ok=True)

    def _append(self, header: dict[str, Any], arrays: bytes) -> None:
        text = json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
        body = _LENGTH.pack(len(text)) + text + arrays
        record = memoryview(_FRAME.pack(_MAGIC, len(body), zlib.crc32(body)) + body)
        with explain_os_errors(self._path):
            while record:  # a signal, or a disk that is nearly full, may cut a write short
                record = record[self._file.write(record) :]


def read_journal(
    folder: Path, *, types: int | None = None
) -> tuple[dict[str, Any], Iterator[Ended | int]]:
    """What a journal holds: its head, then in order, read as they are asked for, the ends of frames, and numbers: how
    many frames had been lost until then before they were submitted.

    types: of the pack, T; None if only the head is wanted.

    Raises OutputError if there is no journal, it is still being written, or it is of another version.
    """
    path = folder / JOURNAL
    with explain_os_errors(path):
        file = path.open("rb")
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OutputError(f"{path} is still being written; wait for that run to end") from error
    records = _records(file)
    head, _ = next(records, ({}, b""))
    if head.get("schema") != _SCHEMA:
        file.close()
        raise OutputError(
            f"{path} is no journal that this version reads (schema {head.get('schema')!r}, not {_SCHEMA}); "
            f"recover it with the version that wrote it"
        )

    def ends() -> Iterator[Ended | int]:
        with file:
            for header, arrays in records:
                if isinstance(header.get("lost"), int):
                    yield header["lost"]
                    continue
                ended = _ended(header, arrays, types or 0)
                if ended is None:
                    return
                yield ended

    if types is None:
        file.close()
        return head, iter(())
    return head, ends()


def _records(file: Any) -> Iterator[tuple[dict[str, Any], bytes]]:
    while True:
        frame = file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            return
        magic, length, checksum = _FRAME.unpack(frame)
        if magic != _MAGIC or not _LENGTH.size <= length <= _MOST_BYTES:
            return
        body = file.read(length)
        if len(body) < length or zlib.crc32(body) != checksum:
            return
        (text_length,) = _LENGTH.unpack_from(body)
        begin = _LENGTH.size
        try:
            header = json.loads(body[begin : begin + text_length])
        except ValueError:
            return
        if not isinstance(header, dict):
            return
        yield header, body[begin + text_length :]


_ARRAYS: dict[str, tuple[type, int | None]] = {
    # Of each array of Regions its type, and how many numbers a region has there; None for one a type.
    "boxes": (np.float32, 4),
    "scores": (np.float32, 1),
    "probabilities": (np.float32, None),
    "has": (np.bool_, None),
    "abnormal_p": (np.float32, 1),
    "abnormal": (np.bool_, 1),
    "flags": (np.uint8, 1),
}


def _ended(header: dict[str, Any], data: bytes, types: int) -> Ended | None:
    """None for a record that does not fit together."""
    try:
        result = None
        if "seconds" in header:
            result = FieldResult(
                slide=header["slide"],
                field=header["field"],
                path=header["path"],
                width=header["width"],
                height=header["height"],
                error=header["error"],
                saturated=header["saturated"],
                seconds=header["seconds"],
                regions=_regions(data, int(header["regions"]), types)
                if "regions" in header
                else None,
            )
        return Ended(
            number=header["number"],
            status=FrameStatus(header["status"]),
            slide=header["slide"],
            field=header["field"],
            cause=header["cause"],
            result=result,
        )
    except (KeyError, ValueError, TypeError):
        return None


def _regions(data: bytes, count: int, types: int) -> Regions:
    arrays: dict[str, Any] = {}
    begin = 0
    for name, (dtype, columns) in _ARRAYS.items():
        width = types if columns is None else columns
        array: npt.NDArray[Any] = np.frombuffer(data, dtype, count * width, begin)
        begin += array.nbytes
        two = columns is None or columns > 1
        arrays[name] = array.reshape(count, width) if two else array
    if begin != len(data):
        raise ValueError(f"{len(data)} bytes of arrays instead of {begin}")
    return Regions(**arrays)
