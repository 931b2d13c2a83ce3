"""Image files, decoded ahead of the networks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rbc_engine.closing import Closing
from rbc_engine.errors import ImageError
from rbc_engine.sources.base import Entry
from rbc_engine.sources.images.ahead import ReadAhead
from rbc_engine.sources.images.base import PictureNotes
from rbc_engine.sources.images.decode import decode_picture, read_stamped
from rbc_engine.types.frames import Decoded

__all__ = ["FileSource"]


class FileSource(Closing):
    """Yield frames of fields, decoded ahead in a few threads: a Source of a Decoded per entry.

    workers: decoding threads.
    ahead: the most frames that are being decoded or wait, which bounds the memory used.
    pixel_um: width of a pixel in µm, the same for all frames; None leaves each what its file
        states.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        workers: int,
        ahead: int,
        pixel_um: float | None = None,
    ) -> None:
        self._notes = PictureNotes(pixel_um)
        self._decoded = ReadAhead(self._decode, entries, workers=workers, ahead=ahead)

    @property
    def notes(self) -> Sequence[str]:
        return self._notes.lines()

    def __iter__(self) -> Iterator[Decoded]:
        return iter(self._decoded)

    def close(self) -> None:
        """Stop the threads. May be called again."""
        self._decoded.close()

    def _decode(self, entry: Entry) -> Decoded:
        if isinstance(entry, Decoded):
            return entry
        start = time.perf_counter()
        frame, reason, stamp = None, None, None
        try:
            data, stamp = read_stamped(entry.path, name=entry.field)
            frame = self._notes.frame(entry, decode_picture(data, name=entry.field))
        except ImageError as error:
            reason = str(error)
        seconds = time.perf_counter() - start
        return Decoded(ref=entry, frame=frame, error=reason, seconds=seconds, stamp=stamp)
