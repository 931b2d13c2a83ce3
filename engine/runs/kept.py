"""Read results of an earlier run from its journal, for outputs that are written again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rbc_engine.closing import Closing
from rbc_engine.errors import ResultsError
from rbc_engine.runs.resume import Plan
from rbc_engine.sinks.journal.run_journal import RunJournal, field_key
from rbc_engine.sources.base import Entry, Source, entry_ref
from rbc_engine.sources.images.files import FileSource
from rbc_engine.types.frames import Decoded, FileStamp, SlideRef
from rbc_engine.types.results import FieldFlag, FieldResult, TileCounts

__all__ = ["KeptResults"]


class KeptResults(Closing):
    """Read the kept fields of a plan, in its order.

    with_frames: their images are read again, a few ahead, for outputs that show pixels; no network
        runs. A whole slide has none.

    Raises ResultsError if images are needed and have changed or are missing.
    """

    def __init__(self, plan: Plan, journal: RunJournal, *, with_frames: bool, workers: int) -> None:
        self._journal = journal
        self._source: Source[Decoded] | None = None
        self._frames: Iterator[Decoded] = iter(())
        if with_frames:
            kept = [
                entry
                for entry in plan.entries
                if not isinstance(entry, SlideRef) and field_key(entry_ref(entry)) in plan.kept
            ]
            self._refuse_missing(kept)
            self._source = FileSource(kept, workers=workers, ahead=workers)
            self._frames = iter(self._source)

    def read(self, entry: Entry) -> FieldResult:
        """Return the next result. One whose image can no longer be read comes back as failed."""
        ref = entry_ref(entry)
        result = replace(
            self._journal.read(field_key(ref)), slide=ref.slide, field=ref.field, path=str(ref.path)
        )
        if isinstance(entry, SlideRef):
            # Tables do not hold the tiles. That there are some is enough to distinguish it from a
            # field.
            return replace(result, tiles=result.tiles or TileCounts(run=0, blank=0))
        if self._source is None:
            return result
        decoded = next(self._frames)
        if decoded.frame is None:
            return replace(
                result,
                regions=None,
                error=decoded.error,
                saturated=False,
                unfamiliar_distance=None,
                uncovered=None,
                flags=FieldFlag(0),
            )
        return replace(result, frame=decoded.frame)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    def _refuse_missing(self, kept: list[Entry]) -> None:
        refs = [entry_ref(entry) for entry in kept]
        changed = [
            ref
            for ref in refs
            if FileStamp.of(ref.path) != self._journal.stored[field_key(ref)].stamp
        ]
        if changed:
            raise ResultsError(
                f"the images of {len(changed)} fields that are kept, the first of them "
                f"{changed[0].field}, are missing or changed, and --formats needs them; give the "
                "same INPUT again, or omit that format"
            )
