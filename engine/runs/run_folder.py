"""Run a folder, the product's main act, as a function: images and whole slides in, tables out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rbc_engine.devices.base import BuildWatch
from rbc_engine.engine import Engine
from rbc_engine.errors import UsageError
from rbc_engine.naming import arguments_named
from rbc_engine.runs.given_scale import check_um_per_px, refuse_unused
from rbc_engine.sinks.files.free_space import check_free_space
from rbc_engine.sinks.formats.table import chosen_formats
from rbc_engine.sinks.out_folder import RESULT_FILES, RUN, Mode, claim
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.sources.copies import copy_notes
from rbc_engine.sources.find import Found, find_fields
from rbc_engine.stats.counts import SlideCounts, SlideTally
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.results import FieldResult

if TYPE_CHECKING:
    from rbc_engine.runs.resume import Plan
    from rbc_engine.sinks.output import OpenSink

__all__ = ["RunProgress", "RunSummary", "run_folder"]

_FAILURES_KEPT = 10


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Report how far a run is.

    fields: of the whole run. done: those with a result, failed ones included.
    kept: done ones that an earlier run had done. slides: of the done ones. regions:
    found by this run.
    tile, tiles: the tile of a whole slide that is being run, from 1, and of how many; 0 between
    slides.
    notes: warnings about a resumed run.
    """

    fields: int
    done: int = 0
    kept: int = 0
    slides: int = 0
    regions: int = 0
    tile: int = 0
    tiles: int = 0
    notes: tuple[str, ...] = ()

    @property
    def begins(self) -> bool:
        """Return whether nothing has been done yet: true once per run."""
        return self.done == 0 and self.tile == 0


@dataclass(frozen=True, eq=False, kw_only=True)
class RunSummary:
    """Report what a run did.

    out: the folder with its files. record: what run.json holds. slides: the sums over the fields
    of each, as in slides.csv. failures: the first ten fields that failed, with reasons; fields.csv
    has all.
    stopped: whether the run was stopped.
    """

    out: Path
    record: RunRecord
    slides: tuple[SlideCounts, ...]
    failures: tuple[str, ...]
    stopped: bool


def run_folder(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    pack: str | Path = "chula12",
    device: str = "auto",
    precision: str = "auto",
    lanes: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    limit: int | None = None,
    um_per_px: float | None = None,
    estimate_scale: bool = True,
    field_prior: bool = True,
    formats: Sequence[str] = (),
    sinks: Sequence[OpenSink] = (),
    stop: threading.Event | None = None,
    on_progress: Callable[[RunProgress], object] = lambda progress: None,
    on_result: Callable[[FieldResult], object] = lambda result: None,
    watch: BuildWatch | None = None,
) -> RunSummary:
    """Find the red cells of all images and write the tables and run.json.

        summary = run_folder("smears", "results")
        print(summary.record.counts.regions)

    inputs: images, whole slides, folders of images (one slide each), or folders of folders (one
    slide each).
    out: the folder for the results; created if missing.
    pack, device, precision, lanes, estimate_scale, field_prior, watch: see Engine.open.
    resume: resume the run in `out` and keep its results. overwrite: replace it.
    limit: run only the first `limit` fields.
    um_per_px: width of a pixel in µm, the same for all images and slides; None leaves each its own,
    if it has one.
    formats: outputs beside the tables, report.html and regions.csv, of
    rbc_engine.sinks.formats.table.FORMATS; with "only" among them, nothing but what is named.
    sinks: outputs of one's own, see rbc_engine.sinks.base.Sink: each is called with the folder and
    the pack.
    stop: when set, from any thread, the fields in flight are finished and no more are started;
    results are written.
    on_progress: called before the first field, after each one, and when a tile of a whole slide
    starts.
    on_result: called with every result in order, kept ones too, after it was written. Both are
        called in this thread; an error of theirs ends the run, which can be resumed.

    A field that fails has its row and reason, and the run continues. Raises UsageError for an
    argument that breaks its rule, OutputError if `out` holds something else or writing fails,
    ResultsError if the run there cannot be resumed, PackError for a damaged pack, DeviceError for a
    device that is missing or, once results were written, failed.
    """
    with arguments_named():
        started = time.perf_counter()
        given = (
            [Path(inputs)] if isinstance(inputs, str | Path) else [Path(each) for each in inputs]
        )
        formats = chosen_formats([formats] if isinstance(formats, str) else list(formats))
        _check(resume=resume, overwrite=overwrite, limit=limit, um_per_px=um_per_px)
        mode: Mode = "overwrite" if overwrite else "resume" if resume else "new"
        claimed = claim(Path(out), mode, inputs={"INPUT": given})
        found = find_fields(
            given, out=Path(out), result_files=RESULT_FILES, holds_results=RUN.is_held
        )
        entries = found.entries[:limit]
        check_free_space(Path(out), fields=len(entries))
        reporter = _Reporter(on_progress, on_result)
        stop = threading.Event() if stop is None else stop
        with Engine.open(
            pack,
            device=device,
            precision=precision,
            lanes=lanes,
            estimate_scale=estimate_scale,
            field_prior=field_prior,
            watch=watch,
        ) as engine:
            refuse_unused(um_per_px, engine.pack)
            # Half a second of imports, while the engine compiles its networks.
            from rbc_engine.runs.run import run_entries

            record = run_entries(
                engine,
                entries,
                claimed,
                formats=formats,
                sinks=sinks,
                pixel_um=um_per_px,
                limit=limit,
                started=started,
                warnings=_left_out(found, limit),
                stop=stop,
                on_plan=reporter.begin,
                on_result=reporter.add,
                on_tile=reporter.add_tile,
            )
    return RunSummary(
        out=Path(out),
        record=record,
        slides=tuple(reporter.tally.rows()),
        failures=tuple(reporter.failures),
        stopped=stop.is_set(),
    )


def _check(*, resume: bool, overwrite: bool, limit: int | None, um_per_px: float | None) -> None:
    check_um_per_px(um_per_px)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1 (got {limit})")
    if resume and overwrite:
        raise UsageError(
            "--resume keeps what is done in --out and --overwrite replaces it; omit one of them"
        )


def _left_out(found: Found, limit: int | None) -> Iterator[str]:
    """Say what was not run, or is there twice. Slow where many files are equally large: to be asked
    when the run is over.
    """
    yield from found.passed_over.lines()
    taken = found.entries[:limit]
    if len(taken) < len(found.entries):
        yield f"--limit {limit}: {len(found.entries) - len(taken)} fields were left out"
    yield from copy_notes(entry for entry in taken if isinstance(entry, FieldRef))


class _Reporter:
    """Add up the events of a run, and report them to the caller."""

    def __init__(
        self,
        on_progress: Callable[[RunProgress], object],
        on_result: Callable[[FieldResult], object],
    ) -> None:
        self.tally = SlideTally()
        self.failures: list[str] = []
        self._on_progress = on_progress
        self._on_result = on_result
        self._progress = RunProgress(fields=0)
        self._slides: set[str] = set()

    def begin(self, plan: Plan) -> None:
        self._progress = RunProgress(fields=len(plan.entries), notes=tuple(plan.notes))
        self._on_progress(self._progress)

    def add(self, result: FieldResult, kept: bool) -> None:
        self.tally.add(result)
        self._slides.add(result.slide)
        if result.error is not None and len(self.failures) < _FAILURES_KEPT:
            self.failures.append(_failure(result.field, result.error))
        before = self._progress
        found = 0 if kept or result.regions is None else len(result.regions)
        self._progress = replace(
            before,
            done=before.done + 1,
            kept=before.kept + kept,
            slides=len(self._slides),
            regions=before.regions + found,
            tile=0,
            tiles=0,
        )
        self._on_result(result)
        self._on_progress(self._progress)

    def add_tile(self, tile: int, of: int) -> None:
        self._progress = replace(self._progress, tile=tile, tiles=of)
        self._on_progress(self._progress)


def _failure(field: str, error: str) -> str:
    """Prefix an error with its field, unless it already names it, as most do."""
    return error if error.startswith(field) else f"{field}: {error}"
