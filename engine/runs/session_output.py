"""Write the files of a run from a session: what a microscope's own loop has for results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rbc_engine.closing import Closing
from rbc_engine.engine import Engine
from rbc_engine.naming import arguments_named
from rbc_engine.runs.record import RunCounts, run_record
from rbc_engine.sinks.formats.table import chosen_formats
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.ends import Ended, FrameCounts, FrameStatus

__all__ = ["SessionOutput"]


class SessionOutput(Closing):
    """Take the outcomes of sessions of an engine, and write the files of `rbc-engine run`.

        with SessionOutput(engine, "results") as output:
            for ended in session.results():
                output.write(ended)

    The files appear together when the block is left, and not at all if it is left by an error.
    Frames that were neither done nor failed have no row; run.json counts them.
    """

    def __init__(
        self,
        engine: Engine,
        out: str | Path,
        *,
        formats: Sequence[str] = (),
        overwrite: bool = False,
    ) -> None:
        """Claim the folder.

        formats: as for run_folder. Those that show pixels need a session with keep_frames=True; the
        report of one without has no pictures.
        overwrite: whether to replace the run in `out`.

        Raises UsageError for an unknown format, OutputError if `out` holds something else.
        """
        self._engine = engine
        self._started = time.perf_counter()
        self._formats = chosen_formats(formats)
        self._counts = RunCounts()
        self._statuses = dict.fromkeys((status.value for status in FrameStatus), 0)
        self._done = False
        with arguments_named():
            claimed = claim(Path(out), "overwrite" if overwrite else "new", resumes=False)
            self._output = RunOutput(claimed, engine.pack, formats=self._formats)

    def write(self, ended: Ended) -> None:
        """Write one outcome. Call it from one thread, or as a session's on_ended. Raises
        OutputError if writing fails.
        """
        self._statuses[ended.status.value] += 1
        if ended.result is not None:
            self._output.write(ended.result)
            self._counts.add(ended.result)

    def finish(self, *, counts: FrameCounts | None = None) -> RunRecord:
        """Put the files in their place, and return what run.json holds.

        counts: of the session, which knows of frames that have no outcome, as those that the camera
        lost; None for what was written.
        """
        frames = {"submitted": sum(self._statuses.values()), **self._statuses}
        record = run_record(
            self._engine,
            self._counts,
            decoder="none; frames of a session",
            startup_s=0.0,
            settings={"formats": self._formats, "source": "session"},
            warnings=[],
        ).changed(
            frames=frames if counts is None else counts.record(),
            wall_seconds=time.perf_counter() - self._started,
        )
        self._done = True
        return self._output.finish(record)

    def close(self) -> None:
        """Remove what is half-written; do nothing after finish."""
        self._output.discard()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self._done:
                self.finish()
        finally:
            self.close()
