"""Measure throughput against the frames per batch of a lane and the number of lanes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rbc_engine.bench.chapters.end_to_end import measure_throughput, pass_from_memory
from rbc_engine.bench.instruments.engines import open_engine
from rbc_engine.bench.instruments.fields import BenchFields
from rbc_engine.bench.settings import BenchSettings
from rbc_engine.devices.cpu.kind import cores_here

__all__ = ["measure_sweep"]

_BATCHES = (1, 2, 4, 8)


def measure_sweep(
    settings: BenchSettings, fields: BenchFields, *, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure `sweep` of bench.json: fields/s from memory for each pair."""
    cores = cores_here()
    lanes = sorted({1, max(1, cores // 2), cores, 2 * cores})
    batches = list(_BATCHES)
    if settings.short:
        lanes, batches = lanes[:2], batches[:2]
    points = []
    for lane_count in lanes:
        for batch in batches:
            say(f"{lane_count} lanes of {batch} frames")
            with open_engine(settings, lanes=lane_count, batch=batch) as engine:
                frames = fields.repeated(max(len(fields.decoded), 2 * lane_count * batch))
                measured = measure_throughput(
                    lambda engine=engine, frames=frames: pass_from_memory(  # type: ignore[misc]
                        engine, frames
                    ),
                    fields=len(frames),
                    repeats=1 if settings.short else 2,
                )
            points.append(
                {
                    "lanes": lane_count,
                    "batch": batch,
                    "fields_per_s": asdict(measured.fields_per_s),
                    "peak_bytes": measured.counted.peak_bytes,
                }
            )
    return points
