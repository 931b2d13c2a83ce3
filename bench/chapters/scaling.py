"""Measure how the cost grows: with fields, with cells per field, and with cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rbc_engine.bench.chapters.cores import CORE_SECONDS, CoreRates, measure_cores
from rbc_engine.bench.instruments.counters import counted
from rbc_engine.bench.instruments.fields import BenchFields, render_fields
from rbc_engine.bench.instruments.spreads import Fit, fit_power
from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.bench.instruments.whole_run import run_into
from rbc_engine.bench.settings import BenchSettings, Size
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.engine import Engine

__all__ = ["Curve", "Point", "field_counts", "fit_points", "measure_scaling"]

FIELD_SIZE = Size(width=640, height=480)
_FIELD_CELLS = 5
_STUB_REGIONS = 60
CELLS = (0, 25, 50, 100, 200, 400, 600)
_CELL_FIELDS = 6
_CELL_SIZE = Size(width=1920, height=1080)
_CORE_CELLS = 20
LEAST_FIT_S = 0.1
"""Times shorter than this are left out of a fit."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Hold one measurement.

    size: fields, regions per field, or cores. seconds: of the whole, or per field; see Curve.
    peak_bytes: of memory.
    """

    size: float
    seconds: float
    peak_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Hold the measurements of one curve.

    cost: what `seconds` of the points are. fit: cost as a power of size, None where it has no
    meaning.
    gap: why points are missing. rates: of the curve of cores.
    """

    name: str
    cost: str
    points: list[Point]
    fit: Fit | None
    gap: str | None = None
    rates: CoreRates | None = None


def field_counts(most: int) -> list[int]:
    """Return 10, 32, 100, 316, ... up to `most`, and `most` itself."""
    steps = [round(10 ** (1 + half / 2)) for half in range(20)]
    return sorted({*(step for step in steps if step < most), most})


def measure_scaling(
    settings: BenchSettings, engine: Engine, *, folder: Path, say: Callable[[str], None]
) -> list[Curve]:
    """Measure all curves. folder: for rendered fields and tables."""
    most = settings.scaling_fields or 1000
    say(f"scaling with fields, to {most}")
    small = render_fields(folder / "few-cells", FIELD_SIZE, count=10, cells=_FIELD_CELLS)
    counts = field_counts(most)
    _run(engine, small, 10, folder)  # the warm-up
    curves = [
        _with_fields("fields", engine, small, counts, folder),
        _without_networks(small, counts, folder),
    ]
    say("scaling with cells per field")
    curves.append(_with_cells(engine, settings, folder))
    say("scaling with cores")
    curves.append(_with_cores(settings))
    return curves


def _with_fields(
    name: str, engine: Engine, fields: BenchFields, counts: Sequence[int], folder: Path
) -> Curve:
    points = []
    for count in counts:
        with counted() as counts_of:
            seconds = _run(engine, fields, count, folder)
        points.append(Point(size=count, seconds=seconds, peak_bytes=counts_of.peak_bytes))
    fit = fit_points(points, measured_s=[point.seconds for point in points])
    return Curve(
        name=name, cost="seconds of the run, from memory into tables", points=points, fit=fit
    )


def _without_networks(fields: BenchFields, counts: Sequence[int], folder: Path) -> Curve:
    """Measure the engine's own cost only: what it would be if networks took no time."""
    with stub_engine(frame_s=0.0, lanes=cores_here(), regions=_STUB_REGIONS) as engine:
        _run(engine, fields, 10, folder)
        curve = _with_fields("fields, without networks", engine, fields, counts, folder)
    return replace(curve, cost=f"{curve.cost}, {_STUB_REGIONS} regions per field, no networks")


def _with_cells(engine: Engine, settings: BenchSettings, folder: Path) -> Curve:
    """Measure seconds per field against the regions found; the fit is of what they add to an empty
    field.
    """
    points: list[Point] = []
    measured_s: list[float] = []
    fields = 2 if settings.short else _CELL_FIELDS
    for cells in CELLS[::3] if settings.short else CELLS:
        rendered = render_fields(folder / f"cells-{cells}", _CELL_SIZE, count=fields, cells=cells)
        regions = sum(
            len(result.regions or ()) for result in engine.run(iter(rendered.decoded))
        )  # which is the warm-up, too
        seconds = min(_run(engine, rendered, fields, folder) for _ in range(2))
        measured_s.append(seconds)
        points.append(Point(size=regions / fields, seconds=seconds / fields))
    empty = points[0]
    added = [
        Point(size=point.size - empty.size, seconds=point.seconds - empty.seconds)
        for point in points[1:]
    ]
    return Curve(
        name="regions per field",
        cost="seconds per field of 1920x1080; the fit is of what the regions add to an empty field",
        points=points,
        fit=fit_points(added, measured_s=measured_s[1:]),
    )


def _with_cores(settings: BenchSettings) -> Curve:
    found = measure_cores(settings, cells=_CORE_CELLS)
    points = [
        Point(size=rate.cores, seconds=1 / rate.fields_per_s)
        for rate in found.rates
        if rate.measured
    ]
    return Curve(
        name="cores",
        cost="seconds per field",
        points=points,
        # Each rate is of many seconds.
        fit=fit_points(points, measured_s=[CORE_SECONDS] * len(points)),
        gap="; ".join(found.gaps) or None,
        rates=found,
    )


def fit_points(points: Sequence[Point], *, measured_s: Sequence[float]) -> Fit | None:
    """Fit the cost of points that took long enough to be measured; None with fewer than two.

    measured_s: how long each took in all. Below LEAST_FIT_S the clock and the start of threads
    count for too much.
    """
    good = [
        (point.size, point.seconds)
        for point, seconds in zip(points, measured_s, strict=True)
        if seconds >= LEAST_FIT_S and point.size > 0 and point.seconds > 0
    ]
    if len({size for size, _ in good}) < 2:
        return None
    return fit_power([size for size, _ in good], [cost for _, cost in good])


def _run(engine: Engine, fields: BenchFields, count: int, folder: Path) -> float:
    """Return the seconds of a whole run of frames in memory, tables included."""
    entries = fields.repeated(count)
    began = time.perf_counter()
    run_into(folder / "scaling", engine, entries)
    return time.perf_counter() - began
