"""Write folders of files that appear whole or not at all, with safe names whatever the fields are
called.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rbc_engine.sinks.files.atomic import explain_os_errors, hidden_beside
from rbc_engine.sinks.files.drive import sync_folder
from rbc_engine.text import encodable
from rbc_engine.types.results import FieldResult

__all__ = ["AtomicFolder", "file_name"]

_MAX_NAME_BYTES = 160
"""File systems allow 255; the rest is for numbers, suffixes, and tools that add some."""

_UNSAFE = set('/\\:*?"<>|%')


class AtomicFolder:
    """Write a folder NAME that holds SLIDE/FIELD, a file or a folder each, FIELD being the name of
    the image file.

    Names are made safe by `file_name`; those that then coincide get ~2, ~3 and so on. Content
    already in NAME remains. All methods except discard raise OutputError if writing fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = hidden_beside(path)
        self._taken: Counter[Path] = Counter()
        with explain_os_errors(path):
            if path.exists() and not path.is_dir():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._beside.mkdir()

    @property
    def beside(self) -> Path:
        """Return where the folder is until it is finished."""
        return self._beside

    def write_field(self, result: FieldResult, data: bytes, *, suffix: str) -> None:
        """Write a file SLIDE/FIELD with this suffix, directly to disk."""
        with explain_os_errors(self.path):
            path = self._field_path(result)
            while True:
                try:
                    file = self._next(path, suffix).open("xb")
                except FileExistsError:
                    continue
                with file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                return

    def make_field(self, result: FieldResult) -> Path:
        """Make a new folder SLIDE/FIELD and return it. Its content is on disk after `complete`."""
        with explain_os_errors(self.path):
            path = self._field_path(result)
            while True:
                folder = self._next(path, "")
                try:
                    folder.mkdir()
                except FileExistsError:
                    continue
                return folder

    def complete(self, *, flush: bool = False) -> None:
        """Write the names to disk; flush: also everything written without fsync."""
        with explain_os_errors(self.path):
            if flush:
                os.sync()  # one by one, a million small files would take a quarter of an hour
            for folder in (
                *(part for part in self._beside.iterdir() if part.is_dir()),
                self._beside,
            ):
                sync_folder(folder)

    def files(self) -> Iterator[str]:
        """Yield its files, each as NAME/SLIDE/FIELD, until it is finished."""
        for parent, _, names in os.walk(self._beside):
            inside = self.path.name / Path(parent).relative_to(self._beside)
            for name in names:
                yield (inside / name).as_posix()

    def finish(self) -> None:
        """Move the folder into place; the caller has completed it."""
        with explain_os_errors(self.path):
            _move(self._beside, self.path)
            sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove the hidden folder; do nothing after finish. May be called again."""
        shutil.rmtree(self._beside, ignore_errors=True)

    def _field_path(self, result: FieldResult) -> Path:
        slide = self._beside / file_name(result.slide)
        slide.mkdir(exist_ok=True)
        return slide / file_name(result.field.removeprefix(result.slide + "/"))

    def _next(self, path: Path, suffix: str) -> Path:
        """Return the next free path; one may exist for a field of the same name, or on a file
        system that ignores case.
        """
        self._taken[path] += 1
        number = self._taken[path]
        return path.with_name(path.name + (f"~{number}" if number > 1 else "") + suffix)


def _move(source: Path, target: Path) -> None:
    """Rename a folder, or its parts if the target already exists."""
    if not (source.is_dir() and target.is_dir()):
        source.replace(target)
        return
    for part in list(source.iterdir()):
        _move(part, target / part.name)
    sync_folder(target)
    source.rmdir()


def file_name(name: str) -> str:
    """Return a file or folder name for a name from outside: one component, visible, no longer than
    file systems allow.

    Slashes and characters that some system treats as special become '_', as do dots and blanks
    where they could mislead. A name that is too long is cut, with a hash of the whole at its end.
    """
    safe = "".join(c if c.isprintable() and c not in _UNSAFE else "_" for c in encodable(name))
    core = safe.strip(". ")
    start = safe.index(core)
    safe = "_" * start + core + "_" * (len(safe) - start - len(core)) or "_"
    data = safe.encode("utf-8")
    if len(data) <= _MAX_NAME_BYTES:
        return safe
    digest = hashlib.sha256(encodable(name).encode("utf-8")).hexdigest()[:16]
    return data[: _MAX_NAME_BYTES - 17].decode("utf-8", "ignore") + "-" + digest
