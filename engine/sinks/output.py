"""All files of a run, as one: they appear together at the end, run.json last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rbc_engine.errors import OutputError
from rbc_engine.pack import Pack
from rbc_engine.sinks.atomic import AtomicFile, explain_os_errors, remove_abandoned
from rbc_engine.sinks.base import DescribedSink, Sink
from rbc_engine.sinks.fields_csv import FieldsCsv
from rbc_engine.sinks.folder import remove_files
from rbc_engine.sinks.formats import FORMATS, check_formats, open_sink
from rbc_engine.sinks.journal import JOURNAL
from rbc_engine.sinks.out_folder import RUN_JSON, refuse_filled
from rbc_engine.sinks.regions_parquet import RegionsParquet
from rbc_engine.sinks.run_journal import RUN_JOURNAL
from rbc_engine.sinks.slides_csv import SlidesCsv
from rbc_engine.sinks.text import encodable
from rbc_engine.types import FieldResult

__all__ = ["RUN_JSON", "RunOutput"]

_FILES = (
    *(RUN_JSON, RegionsParquet.NAME, FieldsCsv.NAME, SlidesCsv.NAME),
    *(chosen.output for chosen in FORMATS.values() if chosen.suffix is None),
)
_FOLDERS = tuple(chosen.output for chosen in FORMATS.values() if chosen.suffix is not None)


class RunOutput:
    """Takes the results of a run, in order, from one thread.

        with RunOutput(out, pack, overwrite=True) as output:
            for result in results:
                output.write(result)
            output.finish(run)

    Nothing is visible before finish. A run.json in the folder means that the files beside it are complete and of
    the same run. Leaving the block without finish, by an error or not, removes what was half-written.
    """

    def __init__(
        self, folder: Path, pack: Pack, *, formats: Sequence[str] = (), overwrite: bool = False
    ) -> None:
        """Makes the folder if it does not exist.

        formats: of FORMATS; the tables are always written.
        overwrite: replace what an earlier run left in the folder: the tables, run.json, and what any of the formats
            makes: its file, or every file of its kind in its folder. The earlier files stay as they are until
            finish; others are not touched.
            What an unfinished run has there under hidden names is removed at once; if it still runs, it fails.

        Raises UsageError for an unknown format or one whose library is missing; OutputError if the folder holds anything and overwrite is not
        set, or if it cannot be written.
        """
        check_formats(formats)
        self._folder = folder
        self._sinks: list[Sink] = []
        self._tables: list[RegionsParquet | FieldsCsv | SlidesCsv] = []
        self._record: AtomicFile | None = None
        _prepare(folder, overwrite=overwrite)
        try:
            self._add_table(RegionsParquet(folder, pack))
            self._add_table(FieldsCsv(folder))
            self._add_table(SlidesCsv(folder, pack.types))
            for name in dict.fromkeys(formats):
                self._sinks.append(open_sink(name, folder, pack))
        except BaseException:
            self.discard()
            raise

    @property
    def needs_frames(self) -> bool:
        """Whether results must carry their frame."""
        return any(sink.needs_frames for sink in self._sinks)

    def write(self, result: FieldResult) -> None:
        """Raises OutputError if the disk refuses; the run's files cannot be finished then."""
        for sink in self._sinks:
            sink.write(result)

    def finish(self, run: dict[str, Any]) -> None:
        """Puts every file in its place, run.json last of all.

        Everything is on the disk before the first file is moved: a full disk leaves none of them behind.

        run: what run.json is to hold. Gets `files`: the sha256 of each table, by which it is known later whether they
            are still what was written.

        Raises OutputError if the disk refuses, ValueError if `run` is no JSON.
        """
        try:
            for sink in self._sinks:
                if isinstance(sink, DescribedSink):
                    sink.describe(run)
                sink.complete()
            run["files"] = {table.NAME: table.sha256() for table in self._tables}
            text = json.dumps(run, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            self._record = AtomicFile(self._folder / RUN_JSON)
            # A backslash escape is what JSON itself has for a lone surrogate.
            self._record.write(text.encode("utf-8", "backslashreplace"))
            self._record.complete()
            # From here on nothing needs space on the disk.
            _remove_earlier_run(self._folder)
            for sink in self._sinks:
                sink.finish()
            self._record.finish()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes what is half-written; does nothing after finish. May be called again."""
        for sink in self._sinks:
            sink.discard()
        if self._record is not None:
            self._record.discard()

    def _add_table(self, table: RegionsParquet | FieldsCsv | SlidesCsv) -> None:
        self._sinks.append(table)
        self._tables.append(table)

    def __enter__(self) -> RunOutput:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def _prepare(folder: Path, *, overwrite: bool) -> None:
    shown = encodable(str(folder))
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not overwrite:
            refuse_filled(folder)
            return
        for name in _FILES:
            if (folder / name).is_dir():
                raise OutputError(
                    f"{name} in --out {shown} is a folder; move it, or name another --out"
                )
        for name in (*_FILES, *_FOLDERS, RUN_JOURNAL, JOURNAL):
            remove_abandoned(folder / name)


def _remove_earlier_run(folder: Path) -> None:
    """What the new files do not replace. run.json first: without it, what is left is known to be no whole."""
    with explain_os_errors(folder):
        (folder / RUN_JSON).unlink(missing_ok=True)
        for chosen in FORMATS.values():
            if chosen.suffix is None:
                (folder / chosen.output).unlink(missing_ok=True)
            else:
                remove_files(folder / chosen.output, chosen.suffix)
