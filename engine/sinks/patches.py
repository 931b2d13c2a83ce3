"""patches/: one small JPEG a region, a folder a field."""

from __future__ import annotations

from pathlib import Path

from rbc_engine.pack import Pack
from rbc_engine.sinks.atomic import explain_os_errors
from rbc_engine.sinks.folder import AtomicFolder
from rbc_engine.sinks.patch_pixels import cut_patches
from rbc_engine.types import FieldResult

__all__ = ["PatchFolder"]


class PatchFolder:
    """patches/SLIDE/FIELD/REGION.jpg, REGION being the region's number in its field, from 000000.

    See AtomicFolder for the names. Fields that failed, or without a region, have no folder.
    """

    NAME = "patches"
    SUFFIX = ".jpg"
    needs_frames = True

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._pack = pack
        self._folder = AtomicFolder(folder / self.NAME)

    def write(self, result: FieldResult) -> None:
        if result.regions is None or not len(result.regions):
            return
        folder = self._folder.make_field(result)
        for region, patch in enumerate(cut_patches(result, self._pack)):
            # No Path here: for small files it takes as long as the writing.
            name = f"{folder}/{region:06d}{self.SUFFIX}"
            with explain_os_errors(self._folder.path), open(name, "xb") as file:  # noqa: PTH123
                file.write(patch)

    def complete(self) -> None:
        self._folder.complete(flush=True)

    def finish(self) -> None:
        self._folder.finish()

    def discard(self) -> None:
        self._folder.discard()
