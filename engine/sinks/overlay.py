"""overlays/: one picture a field, the frame with its regions marked."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections import Counter
from pathlib import Path

from rbc_engine.pack import Pack
from rbc_engine.sinks.atomic import explain_os_errors, hidden_beside, sync_folder
from rbc_engine.sinks.overlay_drawing import OverlayStyle, draw_overlay
from rbc_engine.sinks.text import encodable
from rbc_engine.types import FieldResult

__all__ = ["OverlayFolder", "file_name"]

_MAX_NAME_BYTES = 160
"""File systems allow 255; the rest is for numbers, suffixes, and tools that add some."""

_PNG_COMPRESSION = 1
"""zlib level: on photographs, higher ones take several times as long for a few per cent."""

_UNSAFE = set('/\\:*?"<>|%')


class OverlayFolder:
    """overlays/SLIDE/FIELD.png, FIELD being the name of the image file with its suffix.

    Fields that failed have none, and neither have whole slides. Names are made safe by `file_name`; those that then coincide get ~2, ~3 and so on.
    """

    NAME = "overlays"
    needs_frames = True

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._style = OverlayStyle.of(pack)
        self._folder = folder / self.NAME
        self._beside = hidden_beside(self._folder)
        self._taken: Counter[Path] = Counter()
        with explain_os_errors(self._folder):
            if self._folder.exists() and not self._folder.is_dir():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._beside.mkdir()

    def write(self, result: FieldResult) -> None:
        if result.regions is None or result.tiles is not None:
            return
        if result.frame is None:
            raise ValueError("overlays need results that carry their frame (got none)")
        picture = draw_overlay(
            result.frame.pixels, result.regions, style=self._style, saturated=result.saturated
        )
        encoded = io.BytesIO()
        picture.save(encoded, "png", compress_level=_PNG_COMPRESSION)
        path = self._beside / file_name(result.slide) / self._field_name(result)
        with explain_os_errors(self._folder):
            path.parent.mkdir(exist_ok=True)
            self._write_new(path, encoded.getvalue())

    def complete(self) -> None:
        with explain_os_errors(
            self._folder
        ):  # the pictures themselves are there since they were written
            for folder in (*self._beside.iterdir(), self._beside):
                sync_folder(folder)

    def finish(self) -> None:
        with explain_os_errors(self._folder):
            _move(self._beside, self._folder)
            sync_folder(self._folder.parent)

    def discard(self) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)

    def _field_name(self, result: FieldResult) -> str:
        return file_name(result.field.removeprefix(result.slide + "/"))

    def _write_new(self, path: Path, data: bytes) -> None:
        while True:
            self._taken[path] += 1
            number = self._taken[path]
            suffix = f"~{number}.png" if number > 1 else ".png"
            try:
                file = path.with_name(path.name + suffix).open("xb")
            except FileExistsError:  # a field of that very name, or a file system that ignores case
                continue
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return


def _move(source: Path, target: Path) -> None:
    """Renames a folder, or its parts where the target is there already."""
    if not (source.is_dir() and target.is_dir()):
        source.replace(target)
        return
    for part in list(source.iterdir()):
        _move(part, target / part.name)
    sync_folder(target)
    source.rmdir()


def file_name(name: str) -> str:
    """A file or folder name for a name from outside: one component, visible, no longer than file systems allow.

    Slashes and characters that some system treats as special become '_', as do dots and blanks where they could
    mislead. A name that is too long is cut, with a hash of the whole at its end.
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
