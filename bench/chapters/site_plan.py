"""Plan for a laboratory: how many machines like this one its slides need."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rbc_engine.bench.chapters.cores import CoreRates
from rbc_engine.errors import UsageError

__all__ = ["USED", "SitePlan", "Workload", "parse_workload", "plan_site"]

USED = 0.7
"""The share of a machine's measured rate at which it is planned to be used."""
_NAMES = ("fields", "cells", "slides-per-hour", "hours")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Hold what a laboratory asks for. fields: of a slide. cells: of a field. hours: of a day."""

    fields: int
    cells: int
    slides_per_hour: float
    hours: float


@dataclass(frozen=True, kw_only=True)
class SitePlan:
    """Hold a plan.

    fields_per_s: needed. rate: of this machine with all its cores, measured. machines: like this
    one, at USED. slides_per_machine_hour: at USED. kwh_per_day: of the processors; None without a
    counter of energy. modelled_cores: of a single machine that would do, by the model; None if no
    number of cores does, or there is no model.
    """

    fields_per_s: float
    rate: float
    machines: int
    slides_per_machine_hour: float
    kwh_per_day: float | None
    modelled_cores: int | None


def parse_workload(text: str) -> Workload:
    """Parse fields=...,cells=...,slides-per-hour=...,hours=...; raise UsageError for anything
    else.
    """
    rule = f"--plan must be {','.join(f'{name}=N' for name in _NAMES)}"
    values: dict[str, float] = {}
    for part in text.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not sign or name not in _NAMES or name in values or not 0 < number <= 1e9:
            raise UsageError(f"{rule}, each once, N a number above 0 (got {part.strip()!r:.60})")
        values[name] = number
    missing = [name for name in _NAMES if name not in values]
    if missing:
        raise UsageError(f"{rule} (missing: {', '.join(missing)})")
    cells = round(values["cells"])
    if not 1 <= cells <= 600:
        raise UsageError(f"--plan: cells of a field must lie in 1..600 (got {values['cells']:g})")
    return Workload(
        fields=math.ceil(values["fields"]),
        cells=cells,
        slides_per_hour=values["slides-per-hour"],
        hours=values["hours"],
    )


def plan_site(wanted: Workload, found: CoreRates) -> SitePlan:
    """Plan from the rates of this machine. Raises UsageError if none was measured."""
    measured = [rate for rate in found.rates if rate.measured]
    if not measured:
        raise UsageError(f"nothing was measured to plan with: {'; '.join(found.gaps)}")
    most = measured[-1]
    needed = wanted.slides_per_hour * wanted.fields / 3600
    kwh = None
    if most.watts is not None:
        fields = needed * 3600 * wanted.hours
        kwh = fields * most.watts / most.fields_per_s / 3.6e6
    cores = None
    if found.serial_s is not None and found.parallel_s is not None:
        spare_s = USED / needed - found.serial_s
        cores = max(1, math.ceil(found.parallel_s / spare_s)) if spare_s > 0 else None
    return SitePlan(
        fields_per_s=needed,
        rate=most.fields_per_s,
        machines=math.ceil(needed / (USED * most.fields_per_s)),
        slides_per_machine_hour=USED * most.fields_per_s * 3600 / wanted.fields,
        kwh_per_day=kwh,
        modelled_cores=cores,
    )
