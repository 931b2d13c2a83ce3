"""Write files that appear whole or not at all: under a hidden name next to their place, then
renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.drive import sync_folder
from rbc_engine.text import encodable

__all__ = [
    "AtomicFile",
    "explain_os_errors",
    "file_sha256",
    "hidden_beside",
    "remove_abandoned",
]

_BUFFER_BYTES = 1 << 16
"""Room for any header: a file that can be created can also be started, and only later writes can
fail.
"""

_OTHER_OUT = "or name another --out"
_REMEDIES = {
    errno.ENOSPC: f"free space there, {_OTHER_OUT}",
    errno.EDQUOT: f"free space within your quota, {_OTHER_OUT}",
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f), {_OTHER_OUT}",
    errno.EACCES: f"make the folder writable, {_OTHER_OUT}",
    errno.EPERM: f"make the folder writable, {_OTHER_OUT}",
    errno.EROFS: "name an --out on a disk that is not read-only",
    errno.EEXIST: "a file is in the way; move it, or name another --out",
    errno.ENOTDIR: "a file is where a folder should be; name another --out",
    errno.EISDIR: f"a folder is in the way; move it, {_OTHER_OUT}",
    errno.ENAMETOOLONG: "name an --out with a shorter path",
    errno.ENOENT: "it was removed, perhaps by another run with the same --out; run it again",
}


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError with the path, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, f"check the disk, {_OTHER_OUT}")
        shown = encodable(str(path))
        raise OutputError(f"cannot write {shown}: {error.strerror or error}; {remedy}") from error


class AtomicFile:
    """Write a new binary file that replaces the one at `path`, if any, when it is finished.

    All methods except discard raise OutputError if writing fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.beside = hidden_beside(path)
        """Where the file is until it is finished."""
        with explain_os_errors(path):
            # Exclusive, and with the permissions that any new file of this user gets.
            self.file = self.beside.open("xb", buffering=_BUFFER_BYTES)

    def write(self, data: bytes) -> None:
        with explain_os_errors(self.path):
            self.file.write(data)

    def complete(self) -> None:
        """Write everything to disk and close the file, still under its hidden name. May be called
        again.
        """
        if self.file.closed:
            return
        with explain_os_errors(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()

    def sha256(self) -> str:
        """Return the digest of the whole file, once it is complete."""
        with explain_os_errors(self.path), self.beside.open("rb") as file:
            return file_sha256(file)

    def finish(self) -> None:
        """Complete, then rename into place."""
        self.complete()
        with explain_os_errors(self.path):
            self.beside.replace(self.path)
            sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove the hidden file; do nothing after finish. May be called again."""
        with suppress(OSError):  # closing writes what is buffered, which may be what just failed
            self.file.close()
        with suppress(OSError):
            self.beside.unlink()


def file_sha256(file: BinaryIO) -> str:
    """Return the digest of an open file, from its beginning. Raises OSError."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def hidden_beside(path: Path) -> Path:
    """Return a name in the same folder that no other run takes: .NAME.TOKEN.partial"""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def remove_abandoned(path: Path) -> None:
    """Remove what killed runs left of a file, or of a folder of files in folders. Raises
    OSError.
    """
    for left in path.parent.glob(f".{path.name}.????????.partial"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()
