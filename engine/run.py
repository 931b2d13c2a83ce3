"""A whole run: every field of a source through an engine into the output files, with what run.json says of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import takewhile
from typing import Any

from rbc_engine import _kernels
from rbc_engine.bottleneck import bound_record
from rbc_engine.devices.select import cores_here
from rbc_engine.engine import Engine
from rbc_engine.errors import DeviceError
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sources.dali import DaliSource
from rbc_engine.sources.select import open_source
from rbc_engine.types import Decoded, FieldRef, FieldResult

__all__ = ["RunCounts", "run_fields", "run_record"]

SCHEMA = 1

OnResult = Callable[[FieldResult], None]


@dataclass(kw_only=True)
class RunCounts:
    """What has come out so far."""

    slides: set[str] = field(default_factory=set)
    fields: int = 0
    failed: int = 0
    saturated: int = 0
    regions: int = 0
    abnormal: int = 0

    def add(self, result: FieldResult) -> None:
        self.slides.add(result.slide)
        self.fields += 1
        self.failed += not result.ok
        self.saturated += result.saturated
        if result.regions is not None:
            self.regions += len(result.regions)
            self.abnormal += int(result.regions.abnormal.sum())

    def record(self) -> dict[str, int]:
        """`counts` of run.json."""
        return {
            "slides": len(self.slides),
            "fields": self.fields,
            "failed": self.failed,
            "regions": self.regions,
            "abnormal": self.abnormal,
        }


def run_fields(
    engine: Engine,
    entries: Sequence[FieldRef | Decoded],
    output: RunOutput,
    *,
    pixel_um: float | None = None,
    started: float,
    settings: dict[str, Any],
    warnings: Sequence[str] = (),
    stop: threading.Event,
    on_result: OnResult,
) -> dict[str, Any]:
    """Runs all entries and completes the output.

    started: time.perf_counter() of the start of the run; wall_seconds counts from it.
    settings, warnings: for run.json, beside what is added here.
    stop: when set, fields in flight are finished and no more are begun.
    on_result: called with every result, in order, after it was written.

    Returns what run.json holds. Raises OutputError if the results cannot be written, DeviceError if the last device
    failed: after the output was completed with what was done, unless that is nothing.
    """
    workers = cores_here()
    ahead = 2 * engine.lanes * engine.choice.lane_frames
    startup_s = time.perf_counter() - started
    counts = RunCounts()
    lost: DeviceError | None = None
    source, decoder, decoder_notes = open_source(
        entries, engine.choices, workers=workers, ahead=max(ahead, workers), pixel_um=pixel_um
    )
    with source:
        going: Iterator[Decoded] = takewhile(lambda _: not stop.is_set(), source)
        try:
            for result in engine.run(going, keep_frames=output.needs_frames):
                with engine.meter.stage("write"):
                    output.write(result)
                counts.add(result)
                on_result(result)
        except DeviceError as error:
            # What was done before the last device failed is kept; without any of it there is nothing to keep.
            if counts.failed == counts.fields:
                raise
            lost = error

    stated = [*decoder_notes, *warnings]
    if isinstance(source, DaliSource) and source.given_up:
        stated.append(
            f"DALI could not decode {source.given_up} batches of {engine.choice.lane_frames} files as a whole; "
            f"their files were decoded one by one on the CPU"
        )
    if lost is not None:
        stated.append(
            f"ended early: {len(entries) - counts.fields} of {len(entries)} fields were not run: {lost}"
        )
    if stop.is_set() and counts.fields < len(entries):
        stated.append(
            f"interrupted: {len(entries) - counts.fields} of {len(entries)} fields were not run"
        )
    run = run_record(
        engine,
        counts,
        decoder=decoder,
        startup_s=startup_s,
        settings={"decode_workers": workers, "um_per_px": pixel_um, **settings},
        warnings=stated,
    )
    run["wall_seconds"] = time.perf_counter() - started
    output.finish(run)
    if lost is not None:
        raise lost
    return run


def run_record(
    engine: Engine,
    counts: RunCounts,
    *,
    decoder: str,
    startup_s: float,
    settings: dict[str, Any],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """What run.json says of a run, but for its wall_seconds, which are the caller's to fill in.

    startup_s: seconds until the first frame.
    settings, warnings: for run.json, beside what the engine and the counts say themselves.
    """
    stated = [*engine.notes, *warnings]
    if counts.saturated:
        limit = engine.pack.manifest.detector.max_regions
        stated.append(
            f"{counts.saturated} fields filled the detector's output of {limit} regions and are marked saturated: "
            f"cells may be missing there"
        )
    stage_seconds = engine.meter.stage_seconds
    return {
        "schema": SCHEMA,
        "pack": {
            "name": engine.pack.name,
            "version": engine.pack.manifest.version,
            "sha256": engine.pack.sha256,
        },
        "program": {"version": version("rbc-engine"), "commit": _kernels.commit},
        "device": "; ".join(choice.device.name for choice in engine.choices),
        "backend": engine.choice.device.backend,
        "precision": engine.choice.device.precision,
        "decoder": decoder,
        "settings": {
            "lanes": engine.lanes,
            "threads_per_lane": engine.choice.threads,
            "frames_per_lane": engine.choice.lane_frames,
            "patch_batches": list(engine.choice.batch_patches),
            **settings,
        },
        "wall_seconds": 0.0,
        "startup_seconds": startup_s,
        "network_seconds": engine.meter.network_seconds,
        "stage_seconds": stage_seconds,
        "bottleneck": max(stage_seconds, key=lambda stage: stage_seconds[stage]),
        "bound": bound_record(stage_seconds),
        "counts": counts.record(),
        "warnings": stated,
    }
