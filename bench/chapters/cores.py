"""Measure fields/s, cells/s and watts by cores, and fit a model for more cores than there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rbc_engine.bench.settings import BenchSettings
from rbc_engine.devices.cpu.kind import cores_here

__all__ = ["CORE_SECONDS", "CoreRate", "CoreRates", "measure_cores", "with_model"]

CORE_SECONDS = 10
"""Seconds for which each number of cores is measured, opening the engine not counted."""
_MODELLED = (2, 4)
"""The model is shown for these multiples of the cores of this machine."""


@dataclass(frozen=True, kw_only=True)
class CoreRate:
    """Hold the rate on a number of cores.

    cells_per_s: a clump counts as one. watts: of the processor packages, whatever else runs on
    them; None if that is not known. measured: false for what the model says.
    """

    cores: int
    fields_per_s: float
    cells_per_s: float
    watts: float | None = None
    measured: bool = True


@dataclass(frozen=True, kw_only=True)
class CoreRates:
    """Hold the rates by cores: those measured, then those of the model.

    serial_s, parallel_s: the model, by which a field takes serial_s + parallel_s / cores (Amdahl);
    None with fewer than two measured. gaps: what is missing, and why.
    """

    cells_per_field: int
    precision: str
    rates: list[CoreRate]
    serial_s: float | None = None
    parallel_s: float | None = None
    gaps: list[str] = field(default_factory=list)


def measure_cores(settings: BenchSettings, *, cells: int) -> CoreRates:
    """Measure 1, 2, 4, ... and all cores, each in a process of its own: threads are made for the
    cores there at the start.

    cells: of each field of 640x480 px.
    """
    cores = cores_here()
    rates, gaps, precision = [], [], settings.precision
    for count in sorted({1, *(1 << n for n in range(10) if 1 << n < cores), cores}):
        found = _in_process(settings, cores=count, cells=cells)
        if isinstance(found, str):
            gaps.append(f"{count} cores: {found}")
            break
        precision = found["precision"]
        if found["gap"]:
            gaps.append(f"watts: {found['gap']}")
        rates.append(
            CoreRate(
                cores=count,
                fields_per_s=found["fields_per_s"],
                cells_per_s=found["cells_per_s"],
                watts=found["watts"],
            )
        )
    return with_model(rates, cells=cells, precision=precision, gaps=gaps)


def with_model(
    measured: Sequence[CoreRate], *, cells: int, precision: str, gaps: Sequence[str] = ()
) -> CoreRates:
    """Fit the model to what was measured, and add what it says of more cores."""
    rates = list(measured)
    said = list(dict.fromkeys(gaps))
    if len(rates) < 2:
        return CoreRates(cells_per_field=cells, precision=precision, rates=rates, gaps=said)
    serial_s, parallel_s = _amdahl(rates)
    most = rates[-1]
    per_field = most.cells_per_s / most.fields_per_s
    for times in _MODELLED:
        cores = times * most.cores
        fields_per_s = 1 / (serial_s + parallel_s / cores)
        rates.append(
            CoreRate(
                cores=cores,
                fields_per_s=fields_per_s,
                cells_per_s=fields_per_s * per_field,
                measured=False,
            )
        )
    return CoreRates(
        cells_per_field=cells,
        precision=precision,
        rates=rates,
        serial_s=serial_s,
        parallel_s=parallel_s,
        gaps=said,
    )


def _amdahl(rates: Sequence[CoreRate]) -> tuple[float, float]:
    """Fit seconds of a field by relative least squares, neither part below 0."""
    seconds = np.array([1 / rate.fields_per_s for rate in rates])
    shares = np.array([1 / rate.cores for rate in rates])
    columns = np.stack([np.ones(len(rates)), shares], axis=1) / seconds[:, None]
    serial, parallel = np.linalg.lstsq(columns, np.ones(len(rates)), rcond=None)[0]
    if serial < 0:
        scaled = shares / seconds
        serial, parallel = 0.0, scaled.sum() / (scaled**2).sum()
    elif parallel < 0:
        scaled = 1 / seconds
        serial, parallel = scaled.sum() / (scaled**2).sum(), 0.0
    return float(serial), float(parallel)


def _in_process(settings: BenchSettings, *, cores: int, cells: int) -> dict[str, Any] | str:
    """Return what on_cores prints of the first `cores` cores of this process, or why it failed."""
    own = sorted(os.sched_getaffinity(0))[:cores]
    seconds = 1 if settings.short else CORE_SECONDS
    command = [
        *(sys.executable, "-m", "rbc_engine.bench.chapters.on_cores"),
        *(",".join(map(str, own)), str(seconds), str(cells)),
        *(settings.pack, settings.device, settings.precision),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
