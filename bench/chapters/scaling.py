"""Measure how the cost grows: with fields, with cells per field, and with cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rbc_engine.bench.instruments.counters import counted
from rbc_engine.bench.instruments.fields import BenchFields, render_fields
from rbc_engine.bench.instruments.spreads import Fit, fit_power
from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.bench.instruments.whole_run import run_into
from rbc_engine.bench.settings import BenchSettings, Size
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.engine import Engine
from rbc_engine.errors import RbcError

__all__ = ["Curve", "Point", "field_counts", "measure_scaling"]

FIELD_SIZE = Size(width=640, height=480)
_FIELD_CELLS = 5
_STUB_REGIONS = 60
CELLS = (0, 25, 50, 100, 200, 400, 600)
_CELL_FIELDS = 6
_CELL_SIZE = Size(width=1920, height=1080)
_CORE_SECONDS = 10


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
    gap: why points are missing.
    """

    name: str
    cost: str
    points: list[Point]
    fit: Fit | None
    gap: str | None = None


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
    fit = fit_power([p.size for p in points], [p.seconds for p in points])
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
    points = []
    fields = 2 if settings.short else _CELL_FIELDS
    for cells in CELLS[::3] if settings.short else CELLS:
        rendered = render_fields(folder / f"cells-{cells}", _CELL_SIZE, count=fields, cells=cells)
        regions = sum(
            len(result.regions or ()) for result in engine.run(iter(rendered.decoded))
        )  # which is the warm-up, too
        seconds = min(_run(engine, rendered, fields, folder) for _ in range(2))
        points.append(Point(size=regions / fields, seconds=seconds / fields))
    empty = points[0]
    added = [
        (p.size - empty.size, p.seconds - empty.seconds)
        for p in points[1:]
        if p.size > empty.size and p.seconds > empty.seconds
    ]
    enough = len({size for size, _ in added}) >= 2
    return Curve(
        name="regions per field",
        cost="seconds per field of 1920x1080; the fit is of what the regions add to an empty field",
        points=points,
        fit=fit_power([size for size, _ in added], [cost for _, cost in added]) if enough else None,
    )


def _with_cores(settings: BenchSettings) -> Curve:
    """Measure each number of cores in a process of its own: threads are made for the cores there at
    the start.
    """
    cores = cores_here()
    wanted = sorted({1, *(1 << n for n in range(10) if 1 << n < cores), cores})
    points, gap = [], None
    for count in wanted:
        try:
            rate = _in_process(settings, cores=count)
        except (RbcError, OSError) as error:
            gap = f"{count} cores: {error}"
            break
        points.append(Point(size=count, seconds=1 / rate))
    fit = (
        fit_power([p.size for p in points], [p.seconds for p in points])
        if len(points) > 1
        else None
    )
    return Curve(name="cores", cost="seconds per field", points=points, fit=fit, gap=gap)


def _in_process(settings: BenchSettings, *, cores: int) -> float:
    """Return fields per second on the first `cores` cores of this process."""
    own = sorted(os.sched_getaffinity(0))[:cores]
    seconds = 1 if settings.short else _CORE_SECONDS
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "rbc_engine.bench.chapters.on_cores",
            ",".join(map(str, own)),
            str(seconds),
            settings.pack,
            settings.device,
            settings.precision,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RbcError((done.stderr.strip().splitlines() or ["it gave no reason"])[-1])
    rate: float = json.loads(done.stdout)["fields_per_s"]
    return rate


def _run(engine: Engine, fields: BenchFields, count: int, folder: Path) -> float:
    """Return the seconds of a whole run of frames in memory, tables included."""
    entries = fields.repeated(count)
    began = time.perf_counter()
    run_into(folder / "scaling", engine, entries)
    return time.perf_counter() - began
