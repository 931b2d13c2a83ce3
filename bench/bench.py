"""Run a whole bench: everything that the settings ask for, in turn, into a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rbc_engine import _kernels
from rbc_engine.bench.chapters.bottleneck import find_bottleneck
from rbc_engine.bench.chapters.cores import measure_cores
from rbc_engine.bench.chapters.end_to_end import (
    measure_latency,
    measure_throughput,
    pass_from_disk,
    pass_from_memory,
)
from rbc_engine.bench.chapters.planning import Assumptions, make_plan
from rbc_engine.bench.chapters.scaling import measure_scaling
from rbc_engine.bench.chapters.site_plan import USED, Workload, plan_site
from rbc_engine.bench.chapters.stage_times import measure_stages
from rbc_engine.bench.chapters.sweep import measure_sweep
from rbc_engine.bench.chapters.versus import compare_with_peers
from rbc_engine.bench.instruments.bounds import Limits, measure_limits
from rbc_engine.bench.instruments.engines import open_engine
from rbc_engine.bench.instruments.fields import BenchFields, check_size, read_fields, render_fields
from rbc_engine.bench.instruments.machine import describe_machine
from rbc_engine.bench.settings import BenchSettings, Size
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.engine import Engine
from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.types.frames import HOST

__all__ = ["SCHEMA", "run_bench", "run_plan"]

SCHEMA = 1
"""Of bench.json."""

_LATENCY_FRAMES = 40
_STAGE_REPEATS = 2
_BUSY_LOAD = 0.3
"""Largest load per core by other programs before the bench begins; above it the figures are
doubtful.
"""

Say = Callable[[str], None]


def run_bench(settings: BenchSettings, *, say: Say) -> dict[str, Any]:
    """Measure, and return the content of bench.json. say: called with a line on each thing
    measured.

    Raises UsageError if nothing can be measured: an unknown device or precision, or no size that
    the detector takes.
    """
    machine = describe_machine()
    gaps: list[str] = []
    load = machine["load_1min"]
    if load > _BUSY_LOAD * machine["cores_used"]:
        gaps.append(
            f"other programs were running: a load of {load:.1f} on {machine['cores_used']} cores "
            f"before the bench; speeds are too low, ratios uncertain"
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rbc-bench-")))
        engine = stack.enter_context(open_engine(settings))
        gaps += [*engine.notes, *engine.doubts]
        sets = _field_sets(settings, engine.pack, folder, gaps, say)
        main_set = sets[min(1, len(sets) - 1)]
        on_host = engine.choice.place == HOST
        limits = _limits(engine, settings, gaps, say) if on_host else None
        report: dict[str, Any] = {
            "schema": SCHEMA,
            "program": {"version": version("rbc-engine"), "commit": _kernels.commit},
            "pack": {
                "name": engine.pack.name,
                "version": engine.pack.manifest.version,
                "sha256": engine.pack.sha256,
            },
            "machine": machine,
            "engine": _engine_record(engine),
            "settings": settings.record(),
            "warm_up": "the first pass of everything is excluded",
            "limits": asdict(limits) if limits else None,
            "end_to_end": {
                fields.name: _end_to_end(engine, fields, settings, folder, gaps, say)
                for fields in sets
            },
            "stages": None,
            "bottleneck": None,
        }
        if limits is not None:
            say(f"stages, {main_set.name}")
            repeats = 1 if settings.short else _STAGE_REPEATS
            stages = measure_stages(
                engine, main_set, limits=limits, folder=folder / "stages", repeats=repeats
            )
            bottleneck = find_bottleneck(stages)
            report["stages"] = asdict(stages) | {"fields": main_set.name}
            report["bottleneck"] = asdict(bottleneck) | {"sentence": bottleneck.sentence()}
        else:
            gaps.append("stages and limits: measured on the host only")
        report["peers"] = compare_with_peers(
            engine,
            main_set,
            settings.peers,
            folder=folder / "versus",
            repeats=settings.repeats,
            say=say,
        )
        report["sweep"] = None
        if settings.plots:
            report["sweep"] = measure_sweep(settings, main_set, say=say)
        report["scaling"] = None
        if settings.scaling_fields is not None:
            curves = measure_scaling(settings, engine, folder=folder, say=say)
            report["scaling"] = [asdict(curve) for curve in curves]
            report["plan"] = _plan(report["end_to_end"][main_set.name], main_set, folder)
        report["gaps"] = list(dict.fromkeys(gaps))
        return report


def run_plan(settings: BenchSettings, wanted: Workload) -> dict[str, Any]:
    """Measure by cores, and return a plan for a laboratory with what it rests on."""
    pack = Pack.open(find_pack(settings.pack))
    found = measure_cores(settings, cells=wanted.cells)
    return {
        "schema": SCHEMA,
        "program": {"version": version("rbc-engine"), "commit": _kernels.commit},
        "pack": {"name": pack.name, "version": pack.manifest.version, "sha256": pack.sha256},
        "machine": describe_machine(),
        "precision": found.precision,
        "workload": asdict(wanted),
        "used": USED,
        "cores": asdict(found),
        "plan": asdict(plan_site(wanted, found)),
    }


def _engine_record(engine: Engine) -> dict[str, Any]:
    choice = engine.choice
    return {
        "device": "; ".join(choice.device.name for choice in engine.choices),
        "backend": choice.device.backend,
        "precision": choice.device.precision,
        "lanes": engine.lanes,
        "threads_per_lane": choice.threads,
        "frames_per_lane": choice.lane_frames,
        "patch_batches": list(choice.batch_patches),
    }


def _field_sets(
    settings: BenchSettings, pack: Pack, folder: Path, gaps: list[str], say: Say
) -> list[BenchFields]:
    detector = pack.manifest.detector
    if settings.data is not None:
        say("reading the fields")
        return [read_fields(settings.data, count=settings.fields, settings=detector)]
    sets = []
    problems = []
    for size in settings.sizes:
        problem = check_size(size, detector)
        if problem is not None:
            problems.append(f"size {size} is skipped: {problem}")
            continue
        say(f"rendering fields, {size}")
        sets.append(_rendered(folder, size, settings))
    gaps += problems
    if not sets:
        raise UsageError(f"--sizes has none that the detector takes: {'; '.join(problems)}")
    return sets


def _rendered(folder: Path, size: Size, settings: BenchSettings) -> BenchFields:
    return render_fields(
        folder / f"rendered-{size}", size, count=settings.fields, cells=settings.regions_per_field
    )


def _limits(engine: Engine, settings: BenchSettings, gaps: list[str], say: Say) -> Limits:
    say("the machine's limits")
    limits = measure_limits(
        precision=engine.choice.device.precision, threads=cores_here(), short=settings.short
    )
    gaps += limits.gaps
    return limits


def _end_to_end(
    engine: Engine,
    fields: BenchFields,
    settings: BenchSettings,
    folder: Path,
    gaps: list[str],
    say: Say,
) -> dict[str, Any]:
    """Measure one set of fields: `memory`, `disk` and `latency`."""
    count = len(fields.refs)
    say(f"end to end, {fields.name}, from memory")
    memory = measure_throughput(
        lambda: pass_from_memory(engine, fields.decoded), fields=count, repeats=settings.repeats
    )
    say(f"end to end, {fields.name}, from disk into tables")
    disk = measure_throughput(
        lambda: pass_from_disk(engine, fields, folder / "disk"),
        fields=count,
        repeats=settings.repeats,
    )
    say(f"latency, {fields.name}")
    latency = measure_latency(engine, fields, frames=3 if settings.short else _LATENCY_FRAMES)
    gaps += [*memory.counted.gaps, *disk.counted.gaps]
    return {"memory": asdict(memory), "disk": asdict(disk), "latency": asdict(latency)}


def _plan(end_to_end: dict[str, Any], fields: BenchFields, folder: Path) -> dict[str, Any]:
    written = sum(path.stat().st_size for path in (folder / "disk").iterdir() if path.is_file())
    plans = make_plan(
        fields_per_s=end_to_end["disk"]["fields_per_s"]["median"],
        image_bytes=fields.bytes,
        result_bytes=written / len(fields.refs),
    )
    return {"assumed": asdict(Assumptions()), "plans": [asdict(plan) for plan in plans]}
