"""Make run.json of a run from the engine and the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rbc_engine.engine import Engine
from rbc_engine.runs.bound import bound_record
from rbc_engine.sinks.run_json import Counts, RunRecord
from rbc_engine.sources.open import decoder_of
from rbc_engine.text import printable
from rbc_engine.types.results import FieldFlag, FieldResult

__all__ = ["RunCounts", "run_head", "run_record"]


@dataclass(kw_only=True)
class RunCounts:
    """Count the results so far."""

    slides: set[str] = field(default_factory=set)
    fields: int = 0
    failed: int = 0
    saturated: int = 0
    rescaled: int = 0
    empty: int = 0
    first_empty: str = ""
    unfamiliar: int = 0
    uncovered: int = 0
    regions: int = 0
    abnormal: int = 0

    def add(self, result: FieldResult) -> None:
        self.slides.add(result.slide)
        self.fields += 1
        self.failed += not result.ok
        self.saturated += result.saturated
        self.rescaled += result.um_per_px_from == "estimated"
        self.unfamiliar += FieldFlag.UNFAMILIAR in result.flags
        self.uncovered += FieldFlag.UNCOVERED in result.flags
        if result.regions is not None:
            if not len(result.regions):
                self.empty += 1
                self.first_empty = self.first_empty or result.field
            self.regions += len(result.regions)
            self.abnormal += int(result.regions.abnormal.sum())

    def record(self) -> Counts:
        """Return `counts` of run.json."""
        return Counts(
            slides=len(self.slides),
            fields=self.fields,
            failed=self.failed,
            regions=self.regions,
            abnormal=self.abnormal,
        )


def run_head(engine: Engine, *, settings: Mapping[str, Any]) -> RunRecord:
    """Return run.json as far as it is known before the first field."""
    decoder, _ = decoder_of(engine.choices)
    return run_record(
        engine, RunCounts(), decoder=decoder, startup_s=0.0, settings=settings, warnings=[]
    )


def run_record(
    engine: Engine,
    counts: RunCounts,
    *,
    decoder: str,
    startup_s: float,
    settings: Mapping[str, Any],
    warnings: Sequence[str],
    decoder_notes: Sequence[str] = (),
) -> RunRecord:
    """Return run.json of a run; its wall_seconds are filled in by the caller.

    startup_s: seconds until the first frame.
    settings, warnings: for run.json, in addition to those of the engine and the counts. Settings
        by the names of run_json.Settings.
    decoder_notes: why no faster decoder was used.
    """
    stated = [*engine.doubts, *warnings]
    if counts.saturated:
        limit = engine.pack.manifest.detector.max_regions
        stated.append(
            f"{counts.saturated} fields filled the detector's output of {limit} regions and are "
            f"marked saturated: cells may be missing there"
        )
    if counts.unfamiliar:
        stated.append(
            f"{counts.unfamiliar} of {counts.fields} fields are unlike those that the pack was "
            "trained on and are flagged unfamiliar: do not trust their types, nor their cells if "
            "they show no stained smear"
        )
    if counts.uncovered:
        most = engine.pack.manifest.detector.uncovered_above
        stated.append(
            f"{counts.uncovered} of {counts.fields} fields are flagged uncovered: no box covers "
            f"more than {most:g} of what stands out from their background, so cells are missing "
            "there"
        )
    if counts.rescaled:
        stated.append(
            f"{counts.rescaled} fields have implausible cell sizes at the assumed scale, so their "
            "scale was estimated from the cells (um_per_px in fields.csv). Macrocyte and microcyte "
            "calls there are relative to the field. Pass --um-per-px for true sizes."
        )
    if counts.empty:
        stated.append(
            f"{counts.empty} fields, the first of them {printable(counts.first_empty)}, have no "
            "region: nothing there looks to the detector like a stained cell in bright field; see "
            "whether they are empty, out of focus, or no pictures of a smear"
        )
    stage_seconds = engine.meter.stage_seconds
    return RunRecord.of(
        engine.pack,
        abnormal_types=engine.pack.manifest.abnormal,
        device="; ".join(choice.device.name for choice in engine.choices),
        backend=engine.choice.device.backend,
        precision=engine.choice.device.precision,
        decoder=decoder,
        device_notes=[*engine.notes, *decoder_notes],
        settings={
            "lanes": engine.lanes,
            "threads_per_lane": engine.choice.threads,
            "frames_per_lane": engine.choice.lane_frames,
            "patch_batches": engine.choice.batch_patches,
            "estimate_scale": engine.estimate_scale,
            "field_prior": engine.field_prior is not None,
            **settings,
        },
        wall_seconds=0.0,
        startup_seconds=startup_s,
        network_seconds=engine.meter.network_seconds,
        stage_seconds=stage_seconds,
        bottleneck=max(stage_seconds, key=lambda stage: stage_seconds[stage]),
        bound=bound_record(stage_seconds),
        counts=counts.record(),
        warnings=stated,
    )
