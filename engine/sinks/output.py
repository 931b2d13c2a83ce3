"""All files of a run, as one: they appear together at the end, run.json last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.base import DescribedSink, FolderSink, Sink
from rbc_engine.sinks.files.atomic import AtomicFile
from rbc_engine.sinks.formats.table import FORMATS, check_formats, open_sink
from rbc_engine.sinks.out_folder import OutFolder
from rbc_engine.sinks.own_files import (
    LIVE_JOURNAL,
    OWN_FILES,
    RUN_JOURNAL,
    own_files,
    own_list,
    refuse_in_the_way,
    remove_own,
)
from rbc_engine.sinks.run_json import RUN_JSON, RunRecord
from rbc_engine.sinks.tables.fields_csv import FieldsCsv
from rbc_engine.sinks.tables.regions_parquet import RegionsParquet
from rbc_engine.sinks.tables.slides_csv import SlidesCsv
from rbc_engine.types.results import FieldResult

__all__ = ["OpenSink", "RunOutput"]

OpenSink = Callable[[Path, Pack], Sink]
"""Begins a sink in a folder, which exists by then; a class of sinks is one. Raises OutputError."""

_FILES = (
    *(RUN_JSON, RegionsParquet.NAME, FieldsCsv.NAME, SlidesCsv.NAME),
    *(chosen.output for chosen in FORMATS.values() if chosen.suffix is None),
)
_FOLDERS = tuple(chosen.output for chosen in FORMATS.values() if chosen.suffix is not None)
_ABANDONED = (*_FILES, *_FOLDERS, RUN_JOURNAL, LIVE_JOURNAL, OWN_FILES)


class RunOutput:
    """Takes the results of a run, in order, from one thread.

        with RunOutput(claim(out, "overwrite"), pack) as output:
            for result in results:
                output.write(result)
            output.finish(run)

    Nothing is visible before finish. A run.json in the folder means that the files beside it are
    complete and of the same run. Leaving the block without finish, by an error or not, removes what
    was half-written.
    """

    def __init__(
        self,
        out: OutFolder,
        pack: Pack,
        *,
        formats: Sequence[str] = (),
        sinks: Sequence[OpenSink] = (),
    ) -> None:
        """Makes the folder if it does not exist.

        out: the folder, as claimed. If it is not a new one, the run in it is replaced: the files
            that it lists as its own, which stay as they are until finish. Others are not touched.
            What an unfinished run has there under hidden names is removed at once; if it still
            runs, it fails.
        formats: of FORMATS; the tables are always written.
        sinks: of the caller's own; called here. Their files appear together with the others, but
            are not the run's own: none is removed later.

        Raises UsageError for an unknown format or one whose library is missing; OutputError if a
        new folder is filled by now, if another holds files and no run, if a file that no run wrote
        is where one of this run belongs, or if it cannot be written.
        """
        check_formats(formats)
        folder = self._folder = out.path
        self._sinks: list[Sink] = []
        self._tables: list[RegionsParquet | FieldsCsv | SlidesCsv] = []
        self._formats = tuple(dict.fromkeys(formats))
        self._single = [RUN_JSON, RegionsParquet.NAME, FieldsCsv.NAME, SlidesCsv.NAME]
        self._single += [
            FORMATS[name].output for name in self._formats if FORMATS[name].suffix is None
        ]
        self._records: list[AtomicFile] = []
        out.prepare(self._single, abandoned=_ABANDONED)
        try:
            self._add_table(RegionsParquet(folder, pack))
            self._add_table(FieldsCsv(folder))
            self._add_table(SlidesCsv(folder, pack.types))
            for name in self._formats:
                self._sinks.append(open_sink(name, folder, pack))
            self._own = len(self._sinks)
            for opened in sinks:
                self._sinks.append(opened(folder, pack))
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

    def finish(self, run: RunRecord) -> RunRecord:
        """Puts every file in its place, run.json last of all.

        Everything is on the disk before the first file is moved: a full disk leaves none of them
        behind.

        run: what run.json is to hold, but for its `files`.

        Returns what it holds, with the sha256 of each table, by which it is known later whether
        they are still what was written. Raises OutputError if the disk refuses.
        """
        try:
            for sink in self._sinks:
                if isinstance(sink, DescribedSink):
                    sink.describe(run)
                sink.complete()
            run = run.changed(files={table.NAME: table.sha256() for table in self._tables})
            record = AtomicFile(self._folder / RUN_JSON)
            self._records.append(record)
            record.write(f"{run.text()}\n".encode())
            record.complete()
            earlier, now = own_files(self._folder), self._own_files()
            refuse_in_the_way(self._folder, now, earlier)
            both, own = (own_list(self._folder, names) for names in (earlier | now, now))
            self._records += [both, own]
            # From here on nothing needs space on the disk. Whatever is cut short, the list holds all that is ours.
            both.finish()
            # run.json first: without it, what is left is known to be no whole.
            remove_own(self._folder, [RUN_JSON])
            remove_own(self._folder, earlier - now)
            for sink in self._sinks:
                sink.finish()
            record.finish()
            own.finish()
            return run
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes what is half-written; does nothing after finish. May be called again."""
        for sink in self._sinks:
            sink.discard()
        for record in self._records:
            record.discard()

    def _own_files(self) -> frozenset[str]:
        in_folders = (
            sink.files() for sink in self._sinks[: self._own] if isinstance(sink, FolderSink)
        )
        return frozenset([*self._single, *chain.from_iterable(in_folders)])

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
