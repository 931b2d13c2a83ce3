"""What run.json says of a run: taken from the engine, and from what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rbc_engine.engine import Engine
from rbc_engine.runs.bound import bound_record
from rbc_engine.sinks.run_json import Counts, RunRecord
from rbc_engine.sources.open import decoder_of
from rbc_engine.types.results import FieldResult

__all__ = ["RunCounts", "run_head", "run_record"]


@dataclass(kw_only=True)
class RunCounts:
    """What has come out so far."""

    slides: set[str] = field(default_factory=set)
    fields: int = 0
    failed: int = 0
    saturated: int = 0
    rescaled: int = 0
    regions: int = 0
    abnormal: int = 0

    def add(self, result: FieldResult) -> None:
        self.slides.add(result.slide)
        self.fields += 1
        self.failed += not result.ok
        self.saturated += result.saturated
        self.rescaled += result.um_per_px_estimated is not None
        if result.regions is not None:
            self.regions += len(result.regions)
            self.abnormal += int(result.regions.abnormal.sum())

    def record(self) -> Counts:
        """Returns `counts` of run.json."""
        return Counts(
            slides=len(self.slides),
            fields=self.fields,
            failed=self.failed,
            regions=self.regions,
            abnormal=self.abnormal,
        )


def run_head(engine: Engine, *, settings: Mapping[str, Any]) -> RunRecord:
    """Returns what run.json is to hold as far as it is known before the first field."""
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
) -> RunRecord:
    """Returns what run.json says of a run; its wall_seconds are the caller's to fill in.

    startup_s: seconds until the first frame.
    settings, warnings: for run.json, beside what the engine and the counts say themselves. Settings
        by the names of run_json.Settings.
    """
    stated = [*engine.notes, *warnings]
    if counts.saturated:
        limit = engine.pack.manifest.detector.max_regions
        stated.append(
            f"{counts.saturated} fields filled the detector's output of {limit} regions and are marked saturated: "
            f"cells may be missing there"
        )
    if counts.rescaled:
        stated.append(
            f"{counts.rescaled} fields show cells of a size that no blood has at the scale they were taken to have; "
            f"their scale was estimated from their cells (um_per_px_estimated in fields.csv), so that macrocytes and "
            f"microcytes are so against their own field: give the true one with --um-per-px"
        )
    stage_seconds = engine.meter.stage_seconds
    return RunRecord.of(
        engine.pack,
        abnormal_types=engine.pack.manifest.abnormal,
        device="; ".join(choice.device.name for choice in engine.choices),
        backend=engine.choice.device.backend,
        precision=engine.choice.device.precision,
        decoder=decoder,
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
