"""Rebuild a finished run's tables from the same probabilities, with new thresholds, abnormal types
or caller.

No images are read and no network runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import PackError, ResultsError, UsageError
from rbc_engine.lanes.stages.call import Caller, types_held
from rbc_engine.meter import Meter
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.runs.record import RunCounts
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RUN_JSON, RecalledFrom, RunRecord
from rbc_engine.sinks.tables.regions_parquet import RegionsParquet
from rbc_engine.text import encodable
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = [
    "CallRules",
    "call_rules",
    "pack_of",
    "recall",
    "refuse_recalled",
]

_NAMES_SHOWN = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class CallRules:
    """State how probabilities become has_<type>, abnormal_p and abnormal.

    pack: of the source, its manifest with the new settings.
    caller: another pack, whose gradient boosting gives abnormal_p; None keeps the stored one.
    by_types: whether a region with any of the pack's abnormal types is abnormal, instead of by
    abnormal_p.
    """

    pack: Pack
    caller: Pack | None = None
    by_types: bool = False

    def record(self) -> dict[str, Any]:
        """Return `settings.recall` of run.json."""
        manifest = self.pack.manifest
        caller = self.caller
        return {
            "thresholds": dict(zip(manifest.types, manifest.classifier.thresholds, strict=True)),
            "at_least_one": manifest.classifier.at_least_one,
            "abnormal_by": "types" if self.by_types else "caller",
            "abnormal_types": list(manifest.abnormal) if self.by_types else None,
            "abnormal_threshold": None if self.by_types else manifest.caller.threshold,
            "caller": None if caller is None else _named(caller),
        }


def pack_of(run: FinishedRun, name_or_path: str | None) -> Pack:
    """Return the pack with which a run was made: the shipped one of that name, or the one given.

    Raises PackError if it is not exactly that pack.
    """
    wanted = run.run.pack
    stated = f"{wanted.name} {wanted.version}, sha256 {wanted.sha256}"
    shown = encodable(str(run.folder))
    try:
        pack = Pack.open(find_pack(name_or_path or wanted.name))
    except PackError as error:
        if name_or_path is not None:
            raise
        raise PackError(
            f"{shown} was made with pack {stated:.200}, which is not a shipped one; name its "
            "folder with --pack"
        ) from error
    if pack.sha256 != wanted.sha256:
        raise PackError(
            f"{shown} was made with pack {stated:.200}, not with {pack.name} "
            f"{pack.manifest.version}, {pack.sha256}; name that one with --pack"
        )
    if pack.types != run.types:
        raise ResultsError(
            f"{encodable(str(run.folder / RegionsParquet.NAME))} has other types than its pack "
            f"{pack.name}: it was changed since"
        )
    return pack


def call_rules(
    pack: Pack,
    *,
    thresholds: dict[str, float],
    at_least_one: bool | None = None,
    abnormal: Sequence[str] | None = None,
    abnormal_threshold: float | None = None,
    caller: Pack | None = None,
) -> CallRules:
    """Return the rules of the pack with some of them changed.

    thresholds: by type; the others remain the pack's. at_least_one: None for the pack's.
    abnormal: a region is abnormal if it has any of these types; abnormal_p is then the largest of
    their probabilities.
    abnormal_threshold: of abnormal_p; None for that of the caller's pack. caller: a pack with the
    same types.

    Raises UsageError for what does not fit, or changes nothing.
    """
    manifest = pack.manifest
    _check_types("--threshold", thresholds, pack)
    for name, value in (*thresholds.items(), ("abnormal", abnormal_threshold)):
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"the threshold of {name} must lie in 0..1 (got {value})")
    if not thresholds and all(
        given is None for given in (at_least_one, abnormal, abnormal_threshold, caller)
    ):
        raise UsageError(
            "nothing would change; give --threshold, --thresholds, --at-least-one, --abnormal, "
            "--abnormal-threshold or --caller"
        )
    if abnormal is not None:
        if abnormal_threshold is not None or caller is not None:
            raise UsageError(
                "--abnormal calls a region abnormal by the types it has; --abnormal-threshold and "
                "--caller are for abnormal_p: leave them out, and change --threshold"
            )
        if not abnormal:
            raise UsageError("--abnormal must name at least one type")
        _check_types("--abnormal", abnormal, pack)
    if caller is not None and set(caller.types) != set(pack.types):
        raise UsageError(
            f"--caller {caller.name} has other types than {pack.name}: "
            f"{_listed(set(caller.types) ^ set(pack.types))}; give a pack with the same types"
        )
    called_by = manifest if caller is None else caller.manifest
    threshold = called_by.caller.threshold if abnormal_threshold is None else abnormal_threshold
    classifier = manifest.classifier.model_copy(
        update={
            "thresholds": tuple(
                thresholds.get(name, old)
                for name, old in zip(pack.types, manifest.classifier.thresholds, strict=True)
            ),
            "at_least_one": manifest.classifier.at_least_one
            if at_least_one is None
            else at_least_one,
        }
    )
    chosen = manifest.abnormal
    if abnormal is not None:
        chosen = tuple(name for name in pack.types if name in abnormal)
    changed = manifest.model_copy(
        update={
            "classifier": classifier,
            "caller": manifest.caller.model_copy(update={"threshold": threshold}),
            "abnormal": chosen,
        }
    )
    return CallRules(
        pack=replace(pack, manifest=changed), caller=caller, by_types=abnormal is not None
    )


def recall(
    run: FinishedRun,
    changed: CallRules,
    output: RunOutput,
    *,
    started: float,
    on_result: Callable[[FieldResult, FieldResult], object],
) -> RunRecord:
    """Write the tables of a run with other rules, field by field, and complete the output.

    started: time.perf_counter() of the start of the command. on_result: called with every result,
    as the run had it and as it is now.

    Returns what run.json holds. Raises ResultsError if the run turns out to be damaged, OutputError
    if writing fails.
    """
    meter = Meter()
    counts = RunCounts()
    call = _call_by(changed)
    for index in range(len(run.rows)):
        with meter.stage("decode"):
            before = result = run.result(index)
        if result.regions is not None:
            with meter.stage("call"):
                result = replace(result, regions=call(result.regions))
        with meter.stage("write"):
            output.write(result)
        counts.add(result)
        on_result(before, result)
    record = _record(run, changed, counts, meter)
    return output.finish(record.changed(wall_seconds=time.perf_counter() - started))


def _call_by(changed: CallRules) -> Callable[[Regions], Regions]:
    manifest = changed.pack.manifest
    settings: ClassifierSettings = manifest.classifier
    threshold = np.float32(manifest.caller.threshold)
    abnormal_types = np.array([name in manifest.abnormal for name in manifest.types])
    caller, order = None, np.arange(len(manifest.types))
    if changed.caller is not None:
        caller = Caller(changed.caller)
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


def _record(run: FinishedRun, changed: CallRules, counts: RunCounts, meter: Meter) -> RunRecord:
    source = run.run
    stage_seconds = meter.stage_seconds
    stated = [f"of the run it came from: {line}" for line in source.warnings]
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
        settings={**source.settings.to_json(), "recall": changed.record()},
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


def _check_types(option: str, names: Sequence[str] | dict[str, float], pack: Pack) -> None:
    strangers = sorted(set(names) - set(pack.types))
    if strangers:
        raise UsageError(
            f"{option} names {_listed(strangers)}, which pack {pack.name} does not have; its types "
            f"are {', '.join(pack.types)}"
        )


def _listed(names: Sequence[str] | set[str]) -> str:
    shown = sorted(names)[:_NAMES_SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(f"{name:.60}" for name in shown) + more


def _named(pack: Pack) -> dict[str, str]:
    return {"name": pack.name, "version": pack.manifest.version, "sha256": pack.sha256}
