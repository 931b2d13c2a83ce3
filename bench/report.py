"""Print a report as tables, and write it as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rbc_engine.sinks.files.atomic import AtomicFile

__all__ = ["BENCH_JSON", "print_plan", "print_report", "report_console", "write_report"]

BENCH_JSON = "bench.json"

_FILE_WIDTH = 120

Report = Mapping[str, Any]


def write_report(folder: Path, report: Report, plots: Mapping[str, bytes]) -> None:
    """Write the plots, then bench.json: where that is, everything is. Raises OutputError if writing
    fails.
    """
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files = {**plots, BENCH_JSON: text.encode("utf-8", "backslashreplace")}
    for name, data in files.items():
        file = AtomicFile(folder / name)
        try:
            file.write(data)
            file.finish()
        finally:
            file.discard()


def report_console() -> Console:
    """Return a console on standard output; in a file or a pipe it is as wide as the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


def print_report(report: Report, console: Console) -> None:
    """Print everything that was measured, as tables."""
    machine, engine = report["machine"], report["engine"]
    console.print(
        f"{escape(str(machine['cpu']))}, {machine['cores_used']} cores; "
        f"{escape(engine['backend'])}, {engine['precision']}, {engine['lanes']} lanes of "
        f"{engine['frames_per_lane']} frames; pack {report['pack']['name']} "
        f"{report['pack']['version']}",
        soft_wrap=True,
    )
    console.print(_end_to_end(report["end_to_end"]))
    console.print(_latency(report["end_to_end"]))
    if report["stages"] is not None:
        console.print(_limits(report["limits"]), soft_wrap=True)
        console.print(_stages(report["stages"], unit=_unit(engine["precision"])))
        console.print(escape(report["bottleneck"]["sentence"]), soft_wrap=True)
        console.print(
            f"the networks take {report['bottleneck']['networks_share']:.0%} of the time of all "
            "cores; all else, idle cores too, the rest"
        )
    if report["peers"]:
        console.print(_peers(report["peers"]))
    if report["sweep"]:
        console.print(_sweep(report["sweep"]))
    for curve in report["scaling"] or ():
        _print_curve(curve, console)
    if report["scaling"] is not None:
        console.print(_plan(report["plan"]))
    for gap in report["gaps"]:
        console.print(f"note: {escape(gap)}", soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _range(spread: Mapping[str, float], *, digits: int = 2) -> str:
    return (
        f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f} to {spread['max']:.{digits}f})"
    )


def _end_to_end(sets: Mapping[str, Any]) -> Table:
    table = _table(
        "End to end: medians (lowest to highest); a clump of cells counts as one cell",
        *("fields", "from", "fields/s", "cells/s", "cores busy", "peak MiB", "J/field"),
    )
    for name, entry in sets.items():
        for source in ("memory", "disk"):
            one = entry[source]
            counted = one["counted"]
            joules = counted["energy_joules"]
            passes = one["fields_per_s"]["n"]
            table.add_row(
                escape(name),
                source,
                _range(one["fields_per_s"]),
                f"{one['regions_per_s']['median']:.0f}",
                f"{counted['cpu_busy']:.0%}",
                f"{counted['peak_bytes'] / 2**20:.0f}",
                "-" if joules is None else f"{joules / one['fields'] / passes:.2f}",
            )
    return table


def _latency(sets: Mapping[str, Any]) -> Table:
    table = _table("One frame at a time, ms", "fields", "p50", "p95", "p99", "frames")
    for name, entry in sets.items():
        latency = entry["latency"]
        percentiles = (f"{latency[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
        table.add_row(escape(name), *percentiles, str(latency["n"]))
    return table


def _limits(limits: Mapping[str, Any]) -> str:
    rates = ", ".join(
        f"{name} {rate / 1e9:.0f} {_unit(name)}/s" for name, rate in limits["flops_per_s"].items()
    )
    return (
        f"bounds, measured: matrix products {rates}; memory {limits['bytes_per_s'] / 1e9:.1f} GB/s"
    )


def _unit(precision: str) -> str:
    """Return what operations of a precision are counted in: those of int8 are no floating-point
    ones.
    """
    return "GOP" if precision == "int8" else "GFLOP"


def _stages(stages: Mapping[str, Any], *, unit: str) -> Table:
    table = _table(
        f"Stages of a field, {escape(stages['fields'])}: the time in which each would keep all "
        "cores busy; bound: the least time at the bounds above, not measured",
        *("part", "ms", "share", unit, "MB", f"{unit}/s", "GB/s", "bound ms", "of bound"),
    )
    for part in stages["parts"]:
        seconds, limit = part["seconds"], part["limit_seconds"]
        rated = seconds > 0
        table.add_row(
            part["name"],
            f"{seconds * 1e3:.2f}",
            f"{part['share']:.1%}",
            f"{part['flops'] / 1e9:.2f}" if part["flops"] else "",
            f"{part['bytes'] / 1e6:.2f}" if part["bytes"] else "",
            f"{part['flops'] / seconds / 1e9:.0f}" if rated and part["flops"] else "",
            f"{part['bytes'] / seconds / 1e9:.2f}" if rated and part["bytes"] else "",
            "" if limit is None else f"{limit * 1e3:.2f}",
            "" if part["of_limit"] is None else f"{part['of_limit']:.0%}",
        )
    table.add_row(
        "idle cores",
        f"{stages['idle'] * stages['wall_seconds'] * 1e3:.2f}",
        f"{stages['idle']:.1%}",
    )
    table.add_row("wall", f"{stages['wall_seconds'] * 1e3:.2f}")
    return table


def _peers(peers: Mapping[str, Any]) -> Table:
    table = _table(
        "Peers, in turn with the engine, same files and weights; ratio: engine over peer, fields/s",
        *("peer", "precision", "fields/s", "engine", "ratio", "regions found", "types alike"),
        "why not",
    )
    table.columns[-1].overflow, table.columns[-1].justify = "fold", "left"
    for name, entry in peers.items():
        alike = entry.get("agreement")
        measured = "ratio" in entry
        table.add_row(
            name,
            entry.get("precision", ""),
            f"{entry['fields_per_s']['median']:.2f}" if measured else "",
            f"{entry['engine_fields_per_s']['median']:.2f}" if measured else "",
            _range(entry["ratio_spread"]) if measured else "",
            f"{alike['found']:.1%}" if alike else "",
            f"{alike['alike']:.1%}" if alike else "",
            escape(entry.get("left_out") or entry.get("refused") or ""),
        )
    return table


def _sweep(points: Sequence[Mapping[str, Any]]) -> Table:
    batches = sorted({point["batch"] for point in points})
    table = _table("Fields/s from memory", "lanes", *(f"batch {batch}" for batch in batches))
    rates = {(p["lanes"], p["batch"]): p["fields_per_s"]["median"] for p in points}
    for lanes in sorted({point["lanes"] for point in points}):
        table.add_row(str(lanes), *(f"{rates[lanes, batch]:.2f}" for batch in batches))
    return table


def print_cores(found: Mapping[str, Any], console: Console) -> None:
    """Print the rates by cores, measured and by the model."""
    table = _table(
        f"By cores, fields of 640x480 with {found['cells_per_field']} cells, from memory",
        *("cores", "fields/s", "fields/s a core", "cells/s", "watts", "watts a core"),
        "",
    )
    for rate in found["rates"]:
        cores, watts = rate["cores"], rate["watts"]
        table.add_row(
            str(cores),
            f"{rate['fields_per_s']:.2f}",
            f"{rate['fields_per_s'] / cores:.2f}",
            f"{rate['cells_per_s']:.0f}",
            "-" if watts is None else f"{watts:.0f}",
            "-" if watts is None else f"{watts / cores:.1f}",
            "measured" if rate["measured"] else "model",
        )
    console.print(table)
    if found["serial_s"] is not None:
        console.print(
            f"model, fitted to the measured ones: a field takes {found['serial_s'] * 1e3:.1f} ms + "
            f"{found['parallel_s'] * 1e3:.1f} ms / cores; more cores than measured are its guess"
        )
    for gap in found["gaps"]:
        console.print(f"note: {escape(gap)}", soft_wrap=True)


def print_plan(report: Report, console: Console) -> None:
    """Print the machines that a laboratory needs, and what that rests on."""
    plan, wanted, machine = report["plan"], report["workload"], report["machine"]
    print_cores(report["cores"], console)
    console.print(
        f"{wanted['slides_per_hour']:g} slides an hour of {wanted['fields']} fields with "
        f"{wanted['cells']} cells need {plan['fields_per_s']:.2f} fields/s: "
        f"{plan['machines']} machine{'s' if plan['machines'] > 1 else ''} like this one",
        soft_wrap=True,
    )
    console.print(
        f"measured: {plan['rate']:.2f} fields/s here, {machine['cores_used']} cores of "
        f"{escape(str(machine['cpu']))}, pack {report['pack']['name']} "
        f"{report['pack']['version']}, "
        f"{report['precision']}, fields of 640x480 from memory; reading files and writing tables "
        "come on top",
        soft_wrap=True,
    )
    console.print(
        f"assumed: machines used at {report['used']:.0%} of that rate, "
        f"{plan['slides_per_machine_hour']:.0f} slides an hour each",
        soft_wrap=True,
    )
    if plan["modelled_cores"] is not None:
        console.print(f"by the model: or one machine with {plan['modelled_cores']} such cores")
    if plan["kwh_per_day"] is not None:
        console.print(
            f"by the counted watts: {plan['kwh_per_day']:.2f} kWh for the processors in "
            f"{wanted['hours']:g} hours"
        )


def _print_curve(curve: Mapping[str, Any], console: Console) -> None:
    if curve["rates"] is not None:
        print_cores(curve["rates"], console)
        return
    table = _table(
        f"Scaling with {curve['name']}: {escape(curve['cost'])}", "size", "seconds", "peak MiB"
    )
    for point in curve["points"]:
        peak = point["peak_bytes"]
        table.add_row(
            f"{point['size']:g}",
            f"{point['seconds']:.3f}",
            "" if peak is None else f"{peak / 2**20:.0f}",
        )
    console.print(table)
    fit = curve["fit"]
    if fit is not None:
        error = f" ± {fit['error']:.3f}" if fit["error"] is not None else ""
        console.print(
            f"cost grows with {curve['name']} to the power of {fit['exponent']:.3f}{error} "
            "(fitted; times under 0.1 s left out)"
        )
    if curve["gap"]:
        console.print(f"note: {escape(curve['gap'])}", soft_wrap=True)


def _plan(plan: Mapping[str, Any]) -> Table:
    assumed = plan["assumed"]
    table = _table(
        f"On paper: {assumed['fields_per_slide']} fields per slide, {assumed['slides_per_hour']:g} "
        f"slides per hour and scanner, machines like this one used at {assumed['used']:.0%}",
        *("what", "fields/s", "machines", "machine hours", "images TB", "results GB"),
    )
    for one in plan["plans"]:
        hours = one["machine_hours"]
        table.add_row(
            one["name"],
            f"{one['fields_per_s']:.2f}",
            str(one["machines"]),
            "" if hours is None else f"{hours:.0f}",
            f"{one['image_terabytes']:.3f}",
            f"{one['result_gigabytes']:.3f}",
        )
    return table
