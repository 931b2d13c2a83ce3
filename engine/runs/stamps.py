"""Note with which stamps files were read, and give every result that of the bytes it is of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from rbc_engine.sinks.journal.run_journal import field_key
from rbc_engine.sources.base import Entry, entry_ref
from rbc_engine.types.frames import Decoded, FileStamp, SlideRef
from rbc_engine.types.results import FieldResult

__all__ = ["ReadStamps"]


class ReadStamps:
    """Hold the stamps of images that were read and whose results have not come yet."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], FileStamp | None] = {}

    def noted(self, source: Iterable[Decoded]) -> Iterator[Decoded]:
        """Pass on what a source gives, and note its stamps."""
        for decoded in source:
            self._read[field_key(decoded.ref)] = decoded.stamp
            yield decoded

    def stamped(
        self, result: FieldResult, entry: Entry, *, planned: FileStamp | None
    ) -> FieldResult:
        """Return a result with the stamp of its file.

        planned: the file's stamp when the run began. A whole slide is read for a long time: where its
        stamp is another one at the end, the result is that it failed.
        """
        ref = entry_ref(entry)
        if not isinstance(entry, SlideRef):
            return replace(result, stamp=self._read.pop(field_key(ref), None) or planned)
        if result.ok and FileStamp.of(ref.path) != planned:
            result = FieldResult.failed(
                Decoded(ref=ref, error="changed", seconds=result.seconds),
                f"{ref.field}: the file was changed while it was read; run again once it is complete",
            )
        return replace(result, stamp=planned)
