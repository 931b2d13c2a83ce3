"""patches/: one small JPEG a red region, a folder a field."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import explain_os_errors
from rbc_engine.sinks.files.atomic_folder import AtomicFolder
from rbc_engine.sinks.files.work_behind import WorkBehind
from rbc_engine.sinks.formats.patch_pixels import cut_patches
from rbc_engine.types.results import FieldResult

__all__ = ["PatchFolder"]

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class PatchFolder:
    """Write patches/SLIDE/FIELD/REGION.jpg, REGION being its number in the field, from 000000.

    See AtomicFolder for the names. Fields that failed, or without a red region, have no folder.
    """

    NAME = "patches"
    SUFFIX = ".jpg"
    needs_frames = True

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._pack = pack
        self._folder = AtomicFolder(folder / self.NAME)
        self._work: WorkBehind[None] = WorkBehind(lambda _: None)

    def write(self, result: FieldResult) -> None:
        if result.regions is None or not result.regions.red.any():
            return
        patches = cut_patches(result, self._pack)
        numbers = np.flatnonzero(result.regions.red).tolist()
        self._work.do(self._fill, self._folder.make_field(result), numbers, patches)

    def complete(self) -> None:
        self._work.finish()
        self._folder.complete(flush=True)

    def files(self) -> Iterator[str]:
        return self._folder.files()

    def finish(self) -> None:
        self._folder.finish()

    def discard(self) -> None:
        self._work.close()
        self._folder.discard()

    def _fill(self, folder: Path, numbers: list[int], patches: Iterator[bytes]) -> None:
        with explain_os_errors(self._folder.path):
            inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for region, patch in zip(numbers, patches, strict=True):
                    # Three calls of the system and no more: for small files a Path or a file object
                    # takes as long.
                    file = os.open(f"{region:06d}{self.SUFFIX}", _NEW_FILE, 0o666, dir_fd=inside)
                    try:
                        _write_whole(file, patch)
                    finally:
                        os.close(file)
            finally:
                os.close(inside)


def _write_whole(file: int, data: bytes) -> None:
    """Write all bytes: a filling disk takes a part, and gives its reason only for the rest."""
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, data[written:])
