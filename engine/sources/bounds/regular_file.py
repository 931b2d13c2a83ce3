"""Open files of users and strangers without waiting for pipes, and read them as they are at one time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rbc_engine.errors import ImageError
from rbc_engine.types.frames import FileStamp

__all__ = ["open_regular", "read_start", "read_whole"]

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for whoever writes into it
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def open_regular(path: Path) -> int:
    """Open a file for reading and return its descriptor, which the caller closes.

    Raises ImageError if it is no regular file, OSError if it cannot be opened.
    """
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError("not a regular file; give an image file or a slide")
    return descriptor


def read_start(path: Path, count: int) -> bytes:
    """Return the first bytes of a regular file, at most count and never more than its size. Raises as
    open_regular does.
    """
    descriptor = open_regular(path)
    try:
        return _read(descriptor, min(count, os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)


def read_whole(path: Path, *, most_bytes: int) -> tuple[bytes, FileStamp | None]:
    """Return all of a regular file, and the stamp of just these bytes.

    Raises ImageError if it is no regular file, larger than most_bytes, or was changed meanwhile;
    OSError if it cannot be read.
    """
    descriptor = open_regular(path)
    try:
        before = os.fstat(descriptor)
        if before.st_size > most_bytes:
            raise ImageError(
                f"{before.st_size} bytes, more than the {most_bytes} an image file may have; cut it "
                "into fields, or open it as a whole slide"
            )
        data = _read(descriptor, before.st_size)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not same or len(data) != before.st_size:
        raise ImageError("the file was changed while it was read; run again once it is complete")
    return data, FileStamp.of_status(before)


def _read(descriptor: int, count: int) -> bytes:
    """Read so many bytes, or as many as there are. No file is read beyond its size: some of the
    system's never end.
    """
    parts = []
    while count > 0:
        part = os.read(descriptor, min(count, 1 << 26))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
