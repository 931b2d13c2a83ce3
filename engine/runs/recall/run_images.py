"""Read the images of a finished run again, for outputs that show pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rbc_engine.closing import Closing
from rbc_engine.runs.finished.finished_run import FieldRow, FinishedRun
from rbc_engine.sources.base import Source
from rbc_engine.sources.images.files import FileSource
from rbc_engine.types.frames import Decoded, FieldRef, FileStamp, Frame

__all__ = ["RunImages"]


class RunImages(Closing):
    """Read the images of a run's fields, in order, where they still are what the run read.

    missing: fields that were done, whose image is not there or was changed since. Whole slides
    have no image, and are never missing.
    """

    def __init__(self, run: FinishedRun) -> None:
        self.missing: list[str] = []
        self._slides = {record.get("field") for record in run.run.whole_slides}
        self._readable: set[int] = set()
        for index, row in enumerate(run.rows):
            if not row.ok or self.is_slide(row):
                continue
            if row.stamp is not None and FileStamp.of(Path(row.path)) == row.stamp:
                self._readable.add(index)
            else:
                self.missing.append(row.field)
        self._rows = run.rows
        self._source: Source[Decoded] | None = None
        self._frames: Iterator[Decoded] = iter(())

    def is_slide(self, row: FieldRow) -> bool:
        """Return whether a row is of a whole slide."""
        return row.field in self._slides

    def start(self, *, workers: int) -> None:
        """Start to read, a few ahead."""
        refs = [
            FieldRef(slide=row.slide, field=row.field, path=Path(row.path))
            for row in (self._rows[index] for index in sorted(self._readable))
        ]
        self._source = FileSource(refs, workers=workers, ahead=2 * workers)
        self._frames = iter(self._source)

    def frame(self, index: int) -> Frame | None:
        """Return the image of a row, asked for in order; None without one, or before start."""
        if self._source is None or index not in self._readable:
            return None
        return next(self._frames).frame

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
