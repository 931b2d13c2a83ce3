"""Write overlays/: one picture per field, the frame with its regions marked."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic_folder import AtomicFolder
from rbc_engine.sinks.files.work_behind import WorkBehind
from rbc_engine.sinks.formats.overlay.drawing import OverlayStyle, draw_overlay
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = ["OverlayFolder"]

_PNG_COMPRESSION = 1
"""zlib level: on photographs, higher ones take several times as long for a few per cent."""


class OverlayFolder:
    """Write overlays/SLIDE/FIELD.png; see AtomicFolder for the names. Failed fields and whole
    slides have none.
    """

    NAME = "overlays"
    SUFFIX = ".png"
    needs_frames = True

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._style = OverlayStyle.of(pack)
        self._folder = AtomicFolder(folder / self.NAME)
        self._work = WorkBehind(self._put)

    def write(self, result: FieldResult) -> None:
        if result.regions is None or result.tiles is not None:
            return
        if result.frame is None:
            raise ValueError("overlays need results that carry their frame (got none)")
        self._work.do(self._draw, result, result.frame.pixels, result.regions)

    def complete(self) -> None:
        self._work.finish()
        self._folder.complete()

    def files(self) -> Iterator[str]:
        return self._folder.files()

    def finish(self) -> None:
        self._folder.finish()

    def discard(self) -> None:
        self._work.close()
        self._folder.discard()

    def _draw(
        self, result: FieldResult, pixels: UInt8, regions: Regions
    ) -> tuple[FieldResult, bytes]:
        picture = draw_overlay(pixels, regions, style=self._style, saturated=result.saturated)
        encoded = io.BytesIO()
        picture.save(encoded, "png", compress_level=_PNG_COMPRESSION)
        return result, encoded.getvalue()

    def _put(self, drawn: tuple[FieldResult, bytes]) -> None:
        result, encoded = drawn
        self._folder.write_field(result, encoded, suffix=self.SUFFIX)
