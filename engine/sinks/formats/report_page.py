"""Write report.html: what a run found, on one page."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import AtomicFile
from rbc_engine.sinks.report.contents import Findings
from rbc_engine.sinks.report.page import render
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.results import FieldResult

__all__ = ["ReportPage"]


class ReportPage:
    """Write the page when the run is complete, from what was gathered during it. Results without a
    frame are counted but have no picture.
    """

    NAME = "report.html"
    needs_frames = True

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._pack = pack
        self._findings = Findings(pack.types)
        self._run = RunRecord.of(pack)
        self._written = False
        self._file = AtomicFile(folder / self.NAME)

    def write(self, result: FieldResult) -> None:
        self._findings.add(result)

    def describe(self, run: RunRecord) -> None:
        """Take what run.json will hold, before complete."""
        self._run = run

    def complete(self) -> None:
        if not self._written:
            now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
            for piece in render(self._findings, self._pack, self._run, written=now):
                self._file.write(piece)
            self._written = True
        self._file.complete()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        self._file.discard()
