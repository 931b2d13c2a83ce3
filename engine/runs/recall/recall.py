"""Rebuild a finished run's files from the same probabilities, with new thresholds, abnormal types
or caller.

No network runs, and images are read only for outputs that show pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.errors import ResultsError
from rbc_engine.lanes.prove import check_caller
from rbc_engine.lanes.stages.call import Caller, types_held
from rbc_engine.meter import Meter
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.runs.recall.call_rules import CallRules
from rbc_engine.runs.recall.run_images import RunImages
from rbc_engine.runs.recall.staying import StayingTypes
from rbc_engine.runs.record import RunCounts
from rbc_engine.sinks.formats.table import FORMATS, shows_pixels
from rbc_engine.sinks.out_folder import OutFolder
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RUN_JSON, RecalledFrom, RunRecord
from rbc_engine.text import encodable
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult, TileCounts

__all__ = ["recall", "refuse_recalled"]


def recall(
    run: FinishedRun,
    changed: CallRules,
    out: OutFolder,
    *,
    started: float,
    on_result: Callable[[FieldResult, FieldResult], object],
) -> RunRecord:
    """Write the files of a run with other rules, field by field: its tables, and its formats.

    The images are read again for formats that show pixels. Where some are missing or changed, the
    report is without them, and the other formats of that kind are left out.

    started: time.perf_counter() of the start of the command. on_result: called with every result,
    as the run had it and as it is now.

    Returns what run.json holds. Raises ResultsError if the run turns out to be damaged, OutputError
    if writing fails, UsageError if a library of a format is missing.
    """
    meter = Meter()
    counts = RunCounts()
    call = _call_by(changed)
    stays = StayingTypes(changed.pack.manifest)
    with RunImages(run) as images:
        formats, notes = _formats_again(run, images)
        with RunOutput(out, changed.pack, formats=formats) as output:
            if output.needs_frames:
                images.start(workers=cores_here())
            for index in range(len(run.rows)):
                with meter.stage("decode"):
                    before = result = run.result(index)
                    frame = images.frame(index)
                    if images.is_slide(run.rows[index]):
                        result = replace(result, tiles=TileCounts(run=0, blank=0))
                if result.regions is not None:
                    with meter.stage("call"):
                        result = replace(result, regions=call(result.regions), frame=frame)
                        stays.add(result)
                with meter.stage("write"):
                    output.write(result)
                counts.add(result)
                on_result(before, result)
            notes += [*changed.notes(), *stays.notes(changed.thresholds)]
            record = _record(run, changed, counts, meter, formats=formats, notes=notes)
            return output.finish(record.changed(wall_seconds=time.perf_counter() - started))


def _formats_again(run: FinishedRun, images: RunImages) -> tuple[tuple[str, ...], list[str]]:
    """Return the formats that a run had and that can be made again, and notes on the others."""
    had = tuple(name for name in run.run.settings.formats if name in FORMATS)
    if not images.missing:
        return had, []
    lost = [name for name in had if shows_pixels(name)]
    shown = encodable(images.missing[0])
    notes = []
    if lost or "report" in had:
        notes = [
            f"the images of {len(images.missing)} fields, the first of them {shown:.200}, are not "
            "where the run read them, or were changed since: report.html has no pictures of them"
            + (f", and {', '.join(lost)} of the run are not made again" if lost else "")
        ]
    return tuple(name for name in had if name not in lost), notes


def _call_by(changed: CallRules) -> Callable[[Regions], Regions]:
    manifest = changed.pack.manifest
    settings: ClassifierSettings = manifest.classifier
    threshold = np.float32(manifest.caller.threshold)
    abnormal_types = np.array([name in manifest.abnormal for name in manifest.types])
    caller, order = None, np.arange(len(manifest.types))
    if changed.caller is not None:
        caller = Caller(changed.caller)
        check_caller(changed.caller, caller)
        order = np.array([manifest.types.index(name) for name in changed.caller.types])

    def call(regions: Regions) -> Regions:
        probabilities = regions.probabilities
        has = types_held(probabilities, settings=settings, kinds=regions.kinds)
        if changed.by_types:
            abnormal_p = probabilities[:, abnormal_types].max(axis=1)
            abnormal: npt.NDArray[np.bool_] = np.asarray(has[:, abnormal_types].any(axis=1))
        else:
            abnormal_p = regions.abnormal_p
            if caller is not None:
                abnormal_p = caller(np.ascontiguousarray(probabilities[:, order]))
                abnormal_p = np.where(regions.red, abnormal_p, np.float32(0))
            abnormal = np.asarray((abnormal_p >= threshold) & regions.red, np.bool_)
        return replace(regions, has=has, abnormal_p=abnormal_p, abnormal=abnormal)

    return call


def _record(
    run: FinishedRun,
    changed: CallRules,
    counts: RunCounts,
    meter: Meter,
    *,
    formats: Sequence[str],
    notes: Sequence[str],
) -> RunRecord:
    source = run.run
    stage_seconds = meter.stage_seconds
    stated = [*notes]
    stated += [f"of the run it came from: {line}" for line in source.warnings]
    if changed.caller is not None:
        stated.append(
            f"abnormal_p is from the caller of pack {changed.caller.name} "
            f"{changed.caller.manifest.version}, which was trained on the probabilities of its own "
            "pack, not of these"
        )
        if changed.pack.manifest.detector.unit == "cell":
            most = changed.pack.manifest.classifier.whole_up_to
            stated.append(
                f"abnormal_p of regions of more than {most} cells is by the types of all their "
                "cells together: what each of them had is not stored"
            )
    return RunRecord.of(
        changed.pack,
        abnormal_types=changed.pack.manifest.abnormal,
        device=source.device,
        backend=source.backend,
        precision=source.precision,
        decoder=source.decoder,
        settings={**source.settings.to_json(), "formats": formats, "recall": changed.record()},
        recalled_from=RecalledFrom(
            sha256=run.sha256,
            pack=source.pack,
            program=source.program,
            counts=source.counts,
            wall_seconds=source.wall_seconds,
        ),
        wall_seconds=0.0,
        startup_seconds=0.0,
        network_seconds=0.0,
        stage_seconds=stage_seconds,
        bottleneck=max(stage_seconds, key=lambda stage: stage_seconds[stage]),
        counts=counts.record(),
        warnings=stated,
    )


def refuse_recalled(run: FinishedRun) -> None:
    """Raise ResultsError for a recalled run: its abnormal_p may no longer be the run's."""
    if run.run.recalled_from is not None:
        raise ResultsError(
            f"{encodable(str(run.folder / RUN_JSON))} was itself made by recall; recall the run "
            "that it came from"
        )
