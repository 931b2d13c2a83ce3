"""Run every field of a source through an engine into the output files and run.json.

`run_entries` is that with an open engine and a claimed folder; `run_fields` its inner part, once
everything is open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, takewhile
from typing import Any, TypeVar

from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.engine import Engine
from rbc_engine.errors import DeviceError, OutputError
from rbc_engine.runs.kept import KeptResults
from rbc_engine.runs.record import RunCounts, run_head, run_record
from rbc_engine.runs.resume import (
    Plan,
    fields_first,
    fresh_plan,
    open_earlier,
    resume_plan,
)
from rbc_engine.runs.whole_slides import WholeSlides
from rbc_engine.sinks.journal.run_journal import RunJournal, field_key
from rbc_engine.sinks.out_folder import OutFolder
from rbc_engine.sinks.output import OpenSink, RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.sources.base import Entry, Source, entry_ref
from rbc_engine.sources.open import decoder_of, open_source
from rbc_engine.sources.slides.tile_reader import SlideSource, SlideStart, SlideStep, TileRead
from rbc_engine.sources.stamps import ReadStamps
from rbc_engine.types.frames import SlideRef
from rbc_engine.types.results import FieldResult

__all__ = ["OnResult", "OnTile", "run_entries", "run_fields"]

Item = TypeVar("Item")

OnResult = Callable[[FieldResult, bool], None]
"""Called with a result, and whether it was kept from an earlier run."""

OnTile = Callable[[int, int], object]
"""Called when a tile of a whole slide starts: which one, from 1, and of how many."""


def run_entries(
    engine: Engine,
    entries: Sequence[Entry],
    out: OutFolder,
    *,
    formats: Sequence[str] = (),
    sinks: Sequence[OpenSink] = (),
    pixel_um: float | None = None,
    limit: int | None = None,
    started: float | None = None,
    warnings: Iterable[str] = (),
    stop: threading.Event | None = None,
    on_plan: Callable[[Plan], object] = lambda plan: None,
    on_result: OnResult = lambda result, kept: None,
    on_tile: OnTile = lambda tile, of: None,
) -> RunRecord:
    """Run entries into a folder; when resuming, only those not done there.

    formats, sinks: see RunOutput. pixel_um: µm, of all entries; None leaves them their own.
    limit: the number of fields asked for, for run.json. started: see run_fields; None is now.
    on_plan: called once, before the first field. The others: see run_fields.

    Returns what run.json holds. Raises what run_fields raises; ResultsError if the folder cannot be
    resumed.
    """
    started = time.perf_counter() if started is None else started
    settings = {"um_per_px": pixel_um, "limit": limit, "formats": tuple(formats)}
    head = run_head(engine, settings=settings)
    with ExitStack() as stack:
        out.refuse_running()
        journal = open_earlier(out, engine.pack, head) if out.mode == "resume" else None
        if journal is not None:
            stack.enter_context(journal)
            plan = resume_plan(entries, journal)
        else:
            plan = fresh_plan(entries)
        on_plan(plan)
        output = stack.enter_context(RunOutput(out, engine.pack, formats=formats, sinks=sinks))
        if journal is None:
            journal = stack.enter_context(
                RunJournal.create(out, head.to_json(), types=len(engine.pack.types))
            )
        try:
            return run_fields(
                engine,
                plan,
                output,
                journal,
                pixel_um=pixel_um,
                started=started,
                settings=settings,
                warnings=warnings,
                stop=threading.Event() if stop is None else stop,
                on_result=on_result,
                on_tile=on_tile,
            )
        except OutputError as error:
            if not journal.done:
                raise
            raise OutputError(
                f"{error}; the {journal.done} fields done so far are saved: repeat the same "
                f"command with --resume to continue"
            ) from error


def run_fields(
    engine: Engine,
    plan: Plan,
    output: RunOutput,
    journal: RunJournal,
    *,
    pixel_um: float | None = None,
    started: float,
    settings: Mapping[str, Any],
    warnings: Iterable[str] = (),
    stop: threading.Event,
    on_result: OnResult,
    on_tile: OnTile = lambda tile, of: None,
) -> RunRecord:
    """Run the pending entries of a plan, fields first, then whole slides, take the rest from the
    journal, and complete the output; then remove the journal.

    started: time.perf_counter() of the start of the run; wall_seconds counts from it.
    settings, warnings: for run.json, in addition to those added here.
    stop: when set, fields in flight are finished and no more are started.
    on_result: called with every result, in order, after it was written. on_tile: called between
    them.

    Returns what run.json holds. Raises OutputError if the results cannot be written, DeviceError if
    the last device failed: after the output was completed with what was done, unless that is
    nothing. If the output is not completed, the journal remains, with everything done until then.
    """
    plan = fields_first(plan)
    pending = plan.pending
    workers = cores_here()
    ahead = 2 * engine.lanes * engine.choice.lane_frames
    startup_s = time.perf_counter() - started
    counts = RunCounts()
    lost: DeviceError | None = None
    first_result_s: float | None = None
    decoder, decoder_notes = decoder_of(engine.choices)
    source = open_source(
        [entry for entry in pending if not isinstance(entry, SlideRef)],
        engine.choices,
        workers=workers,
        ahead=max(ahead, workers),
        pixel_um=pixel_um,
    )
    tiles: Source[SlideStep] = SlideSource(
        [entry for entry in pending if isinstance(entry, SlideRef)],
        settings=engine.pack.manifest.detector,
        pixel_um=pixel_um,
        workers=workers,
        ahead=max(ahead, workers),
    )
    slides = WholeSlides(engine)
    stamps = ReadStamps()

    def going(items: Iterable[Item]) -> Iterator[Item]:
        return takewhile(lambda _: not stop.is_set(), items)

    with ExitStack() as stack:
        stack.enter_context(source)
        stack.enter_context(tiles)
        kept = stack.enter_context(
            KeptResults(plan, journal, with_frames=output.needs_frames, workers=workers)
        )
        results = chain(
            engine.run(stamps.noted(going(source)), keep_frames=output.needs_frames),
            slides.results(_told(going(tiles), on_tile)),
        )
        for entry, stamp in zip(plan.entries, plan.stamps, strict=True):
            key = field_key(entry_ref(entry))
            was_kept = key in plan.kept
            if was_kept:
                result: FieldResult | None = kept.read(entry)
            else:
                try:
                    # None: stopped; kept results are written all the same.
                    result = next(results, None)
                except DeviceError as error:
                    lost, result = error, None
            if result is None:
                continue
            if first_result_s is None and not was_kept:
                first_result_s = time.perf_counter() - started
            with engine.meter.stage("write"):
                if not was_kept:
                    result = stamps.stamped(result, entry, planned=stamp)
                    journal.write(result)
                output.write(result)
            counts.add(result)
            on_result(result, was_kept)
    if lost is not None and counts.failed == counts.fields:
        raise lost  # nothing was done before the last device failed: there is nothing to keep

    stated = [*plan.notes, *warnings, *journal.notes, *slides.notes]
    total = len(plan.entries)
    slide_count = sum(isinstance(entry, SlideRef) for entry in plan.entries)
    if slide_count and output.needs_frames:
        stated.append(
            f"{slide_count} whole slides have no picture in report.html and no overlay: they are "
            "too large for one"
        )
    stated += [*source.notes, *tiles.notes]
    if lost is not None:
        stated.append(
            f"ended early: {total - counts.fields} of {total} fields were not run: {lost}"
        )
    if stop.is_set() and counts.fields < total:
        stated.append(f"interrupted: {total - counts.fields} of {total} fields were not run")
    run = run_record(
        engine,
        counts,
        decoder=decoder,
        startup_s=startup_s,
        settings={"decode_workers": workers, "um_per_px": pixel_um, **settings},
        warnings=stated,
        decoder_notes=decoder_notes,
    )
    if slides.records:
        run = run.changed(whole_slides=slides.records)
    run = output.finish(
        run.changed(first_result_seconds=first_result_s, wall_seconds=time.perf_counter() - started)
    )
    journal.remove()
    if lost is not None:
        raise lost
    return run


def _told(steps: Iterable[SlideStep], on_tile: OnTile) -> Iterator[SlideStep]:
    tile = of = 0
    for step in steps:
        if isinstance(step, SlideStart):
            tile, of = 0, step.plan.count
        elif isinstance(step, TileRead):
            tile += 1
            on_tile(tile, of)
        yield step
