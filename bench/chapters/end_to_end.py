"""Run fields through the whole engine: from memory, from disk into tables, and one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rbc_engine.bench.instruments.counters import Counted, counted
from rbc_engine.bench.instruments.fields import BenchFields
from rbc_engine.bench.instruments.spreads import Spread, spread
from rbc_engine.bench.instruments.whole_run import run_into
from rbc_engine.engine import Engine
from rbc_engine.errors import RbcError
from rbc_engine.types.frames import Decoded
from rbc_engine.types.results import FieldResult

__all__ = [
    "Latency",
    "Throughput",
    "measure_latency",
    "measure_throughput",
    "pass_from_disk",
    "pass_from_memory",
]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Hold the throughput over all fields. regions: of one pass. regions_per_s counts a clump of
    cells as one.

    counted: over all measured passes.
    """

    fields_per_s: Spread
    regions_per_s: Spread
    fields: int
    regions: int
    counted: Counted


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Hold the time from a frame in memory to its regions, one at a time, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    n: int
    samples_ms: list[float]


def measure_throughput(run: Callable[[], int], *, fields: int, repeats: int) -> Throughput:
    """Time passes over `fields` fields; run: one pass, returns the regions found. The first pass, a
    warm-up, is excluded.
    """
    regions = run()
    seconds = []
    with counted() as counts:
        for _ in range(repeats):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
    return Throughput(
        fields_per_s=spread([fields / value for value in seconds]),
        regions_per_s=spread([regions / value for value in seconds]),
        fields=fields,
        regions=regions,
        counted=counts,
    )


def measure_latency(engine: Engine, fields: BenchFields, *, frames: int) -> Latency:
    """Time frames one at a time, excluding the first pass over the fields."""
    items = [item.frame for item in fields.decoded if item.frame is not None]
    for frame in items:
        engine.analyze(frame)
    samples = []
    for index in range(frames):
        began = time.perf_counter()
        engine.analyze(items[index % len(items)])
        samples.append((time.perf_counter() - began) * 1e3)
    p50, p95, p99 = np.quantile(samples, [0.5, 0.95, 0.99])
    return Latency(
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        n=len(samples),
        samples_ms=samples,
    )


def pass_from_memory(engine: Engine, decoded: Sequence[Decoded]) -> int:
    """Analyse decoded frames and return the number of regions. Raises RbcError if a field
    failed.
    """
    return sum(_regions(result) for result in engine.run(iter(decoded)))


def pass_from_disk(engine: Engine, fields: BenchFields, folder: Path) -> int:
    """Do what `rbc-engine run` does once its engine is open: files in, tables out. See
    pass_from_memory.
    """
    regions = 0

    def on_result(result: FieldResult) -> None:
        nonlocal regions
        regions += _regions(result)

    run_into(folder, engine, fields.refs, on_result=on_result)
    return regions


def _regions(result: FieldResult) -> int:
    if result.regions is None:
        raise RbcError(f"{result.field} failed during the bench: {result.error}")
    return len(result.regions)
