"""Run live: frames as they arrive, through a session into the output files and run.json."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbc_engine.engine import Engine
from rbc_engine.errors import OutputError, PackError, RbcError
from rbc_engine.packs.pack import Pack
from rbc_engine.runs.record import RunCounts, run_record
from rbc_engine.session.session import Session
from rbc_engine.sinks.files.atomic import explain_os_errors
from rbc_engine.sinks.formats.table import shows_pixels
from rbc_engine.sinks.journal.live_journal import LiveJournal, read_live_journal
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.own_files import LIVE_JOURNAL, RUN_JOURNAL
from rbc_engine.sinks.run_json import RUN_JSON, LatencySeconds, RunRecord
from rbc_engine.stats.monitor import SlideMonitor
from rbc_engine.text import encodable
from rbc_engine.types.ends import Ended, FrameCounts, FrameStatus, Latency

__all__ = ["Feed", "LiveState", "live_head", "recover", "run_live"]

Feed = Callable[[Session, threading.Event], object]
"""Submits frames until there are no more or the event is set; then returns."""

_TICK_S = 0.25
_CLOSE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class LiveState:
    """Hold what a live table shows. seconds: since the first frame could come."""

    seconds: float
    frames: FrameCounts
    latency: Latency
    monitor: SlideMonitor


def run_live(
    engine: Engine,
    session: Session,
    feed: Feed,
    output: RunOutput,
    journal: LiveJournal,
    monitor: SlideMonitor,
    *,
    decoder: str,
    started: float,
    settings: Mapping[str, Any],
    stops: Mapping[str, threading.Event],
    on_tick: Callable[[LiveState], object],
) -> RunRecord:
    """Run a feed to its end and complete the output; then the journal is removed.

    started: time.perf_counter() of the start of the command; wall_seconds counts from it.
    stops: by what run.json says stopped the run: when one of them is set, the feed ends and the
        frames in flight are finished.
    on_tick: called a few times a second, and once at the end.

    Returns what run.json holds. Raises OutputError if results cannot be written: then the journal
    remains, with all that was written before.
    """
    session.wait_ready()
    begun = time.perf_counter()
    counts = RunCounts()
    stop = threading.Event()
    feeder = _Feeder(feed, session, stop)
    ticked = begun

    def tick() -> None:
        state = LiveState(
            seconds=time.perf_counter() - begun,
            frames=session.counts,
            latency=session.latency,
            monitor=monitor,
        )
        on_tick(state)

    try:
        while True:
            ended = session.read(timeout_s=_TICK_S)
            if ended is not None:
                with engine.meter.stage("write"):
                    journal.write(ended)
                    _write(ended, output, counts)
                monitor.add(ended)
            elif session.over:
                break
            if any(event.is_set() for event in stops.values()):
                stop.set()
            if time.perf_counter() - ticked >= _TICK_S:
                ticked = time.perf_counter()
                journal.note_lost(session.counts.lost)
                tick()
    finally:
        stop.set()
        session.close(drain=False, timeout_s=_CLOSE_S)
        feeder.join(_CLOSE_S)
    tick()
    run = run_record(
        engine,
        counts,
        decoder=decoder,
        startup_s=begun - started,
        settings=settings,
        warnings=[*_warnings(session, feeder), *journal.notes],
    )
    latency = session.latency
    run = output.finish(
        run.changed(
            frames=session.counts.record(),
            source_error=feeder.failure,
            stopped_by=_stopped_by(feeder, stops, session, settings, begun_s=begun),
            latency_seconds=LatencySeconds(p50=latency.p50_s, p99=latency.p99_s),
            wall_seconds=time.perf_counter() - started,
        )
    )
    journal.remove()
    return run


def _stopped_by(
    feeder: _Feeder,
    stops: Mapping[str, threading.Event],
    session: Session,
    settings: Mapping[str, Any],
    *,
    begun_s: float,
) -> str:
    if feeder.failure is not None:
        return "source_error"
    for name, event in stops.items():
        if event.is_set():
            return name
    frames, seconds = settings.get("frames"), settings.get("seconds")
    if frames is not None and session.counts.submitted >= frames:
        return "frames"
    if seconds is not None and feeder.ended_s - begun_s >= seconds:
        return "seconds"
    return "source_end"


def recover(folder: Path, pack: Pack) -> RunRecord:
    """Complete the files of an interrupted live run from its journal.

    Pictures are not in the journal: the report has none, and formats that show pixels are left
    out.

    Returns what run.json holds. Raises OutputError if there is no journal, ResultsError if it is
    damaged, PackError if it was written with another pack.
    """
    _refuse_without_journal(folder)
    head, _ = read_live_journal(folder)
    run = RunRecord.of_json(head.get("run"), path=folder / LIVE_JOURNAL)
    written = run.pack
    if written.sha256 != pack.sha256:
        raise PackError(
            f"{folder} was written with pack {written.name} {written.version}, sha256 "
            f"{written.sha256}, not with {pack.name} {pack.manifest.version}, {pack.sha256}; name "
            "that one with --pack"
        )
    counts = RunCounts()
    frames = dict.fromkeys((status.value for status in FrameStatus), 0)
    formats = tuple(name for name in run.settings.formats if not shows_pixels(name))
    with RunOutput(claim(folder, "overwrite"), pack, formats=formats) as output:
        lost = 0
        for ended in read_live_journal(folder, types=len(pack.types))[1]:
            if isinstance(ended, int):
                lost = ended
                continue
            frames[ended.status.value] += 1
            _write(ended, output, counts)
        frames["dropped"] += lost
        said = (
            "recovered from the journal of a run that was cut short: frames of its last second may "
            "be missing, and its times are unknown"
        )
        run = output.finish(
            run.changed(
                counts=counts.record(),
                warnings=[*run.warnings, said],
                frames={"submitted": sum(frames.values()), **frames},
                source_error=None,
                stopped_by="crash",
                settings={**run.settings.to_json(), "formats": formats},
            )
        )
    with explain_os_errors(folder):
        (folder / LIVE_JOURNAL).unlink()
    return run


def _refuse_without_journal(folder: Path) -> None:
    """Raise OutputError if there is nothing to recover, saying what the folder is."""
    shown = encodable(str(folder))
    if (folder / LIVE_JOURNAL).exists():
        return
    if not folder.is_dir():
        raise OutputError(f"--recover {shown} is no folder; name the --out of an interrupted run")
    if (folder / RUN_JOURNAL).exists():
        raise OutputError(
            f"--recover {shown} holds a run of images that was cut short, not of a camera; "
            "`rbc-engine run --resume` continues it"
        )
    if (folder / RUN_JSON).exists():
        RunRecord.read(folder / RUN_JSON)
        raise OutputError(
            f"--recover {shown} holds a finished run: its files are whole, and there is nothing "
            "to recover"
        )
    raise OutputError(
        f"--recover {shown} holds neither {LIVE_JOURNAL} nor a run: nothing can be recovered from "
        "it; name the --out of an interrupted run"
    )


def live_head(engine: Engine, *, decoder: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the head of a journal: run.json as far as it is known before the first frame."""
    run = run_record(
        engine, RunCounts(), decoder=decoder, startup_s=0.0, settings=settings, warnings=[]
    )
    return {"run": run.to_json()}


class _Feeder:
    """Run the feed in a thread of its own. However it ends, it finishes the session.

    failure: why it ended, if by an error. ended_s: time.perf_counter() then.
    """

    def __init__(self, feed: Feed, session: Session, stop: threading.Event) -> None:
        self.failure: str | None = None
        self.ended_s = 0.0
        self._feed = feed
        self._session = session
        self._stop = stop
        self._thread = threading.Thread(target=self._run, name="rbc-feed", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._session.note_problem("the camera or the reading of files did not stop")

    def _run(self) -> None:
        try:
            self._feed(self._session, self._stop)
        except Exception as error:
            kind = "" if isinstance(error, RbcError) else f"{type(error).__name__}: "
            self.failure = f"{kind}{error}"
        finally:
            self.ended_s = time.perf_counter()
            self._session.finish()


def _write(ended: Ended, output: RunOutput, counts: RunCounts) -> None:
    """Write a row for a frame that was analysed or failed; count any other."""
    if ended.result is not None:
        output.write(ended.result)
        counts.add(ended.result)


def _warnings(session: Session, feeder: _Feeder) -> list[str]:
    counts = session.counts
    stated = [f"{count} frames were {cause}" for cause, count in session.causes.items()]
    stated += [f"{text} ({count} times)" for text, count in session.problems.items()]
    if counts.unread:
        stated.append(
            f"{counts.unread} outcomes of frames were not written, because the disk was too slow: "
            f"they are counted, but those that were done have no rows"
        )
    if feeder.failure is not None:
        stated.append(f"the source of frames failed: {feeder.failure}")
    return stated
