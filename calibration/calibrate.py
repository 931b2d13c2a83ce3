"""Calibrate a pack: find the ranges, then test every precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rbc_engine.calibration.collect import observe_fields
from rbc_engine.calibration.guard import evaluate_precision
from rbc_engine.calibration.ranges import NetworkProbe, choose_ranges, layer_errors
from rbc_engine.packs.calibration import NETWORKS, Acceptance, Calibration, NetworkRanges
from rbc_engine.packs.pack import Pack
from rbc_engine.stats.drift import Drift
from rbc_engine.types.regions import Regions

__all__ = ["Evaluate", "calibrate", "keep_worst", "rank_layers"]

Log = Callable[[str], None]


Evaluated = tuple[str, Mapping[str, float], Sequence[Regions]]
"""A pack in one precision: name of the device, measures of guard.LARGEST_FALLS, regions of every
field.
"""


class Evaluate(Protocol):
    """Score a pack on labelled fields."""

    smear_groups: int

    def __call__(self, pack: Pack, device: str, precision: str) -> Evaluated: ...


def calibrate(
    pack: Pack,
    paths: Sequence[Path],
    *,
    evaluate: Evaluate | None,
    precisions: Sequence[tuple[str, str]],
    notes: Mapping[str, str | int | float | bool],
    log: Log,
) -> Calibration:
    """Find the ranges on some fields and test the precisions on other, labelled ones.

    paths: images to take the ranges from. evaluate: None skips the tests.
    precisions: device and precision of each test, e.g. ('cpu', 'int8') or ('cuda:1', 'fp8').
    notes: for the record.

    If int8 on the CPU is refused, layers are left in float, the worst first and as few as make it
    acceptable.
    """
    observed, regions = observe_fields(pack, paths, log=log)
    probes = {name: NetworkProbe(name, pack.read(name), observed.inputs(name)) for name in NETWORKS}
    networks = {
        name: choose_ranges(probes[name], observed.histograms[name], log) for name in NETWORKS
    }
    about = {**notes, "fields": len(paths), "regions": regions}
    calibration = _calibration(networks, {}, about)
    if evaluate is None:
        return calibration
    exact = evaluate(pack, "cpu", "fp32")
    verdicts: dict[str, Acceptance] = {}
    for device, precision in precisions:
        verdict = _verdict(pack, calibration, evaluate, exact, device, precision, log)
        if (device, precision) == ("cpu", "int8") and not verdict.accepted:
            networks, verdict = _leave_in_float(
                pack, networks, probes, verdict, evaluate, exact, log
            )
            calibration = _calibration(networks, {}, about)
        verdicts[f"{device.partition(':')[0]}:{precision}"] = verdict
    return _calibration(networks, verdicts, about)


def rank_layers(
    probes: Mapping[str, NetworkProbe], networks: Mapping[str, NetworkRanges]
) -> list[tuple[str, str, float]]:
    """Rank layers by how much the outputs of their network change if only they are quantised.

    Returns network, layer and change, worst first.
    """
    ranked = [
        (name, layer, error)
        for name in networks
        for layer, error in layer_errors(probes[name], networks[name]).items()
    ]
    return sorted(ranked, key=lambda row: -row[2])


def keep_worst(
    networks: Mapping[str, NetworkRanges], ranked: Sequence[tuple[str, str, float]], count: int
) -> dict[str, NetworkRanges]:
    """Return the ranges with the worst `count` layers left in float."""
    return {
        name: network.model_copy(
            update={
                "keep_float": tuple(layer for other, layer, _ in ranked[:count] if other == name)
            }
        )
        for name, network in networks.items()
    }


def _leave_in_float(
    pack: Pack,
    networks: Mapping[str, NetworkRanges],
    probes: Mapping[str, NetworkProbe],
    refused: Acceptance,
    evaluate: Evaluate,
    exact: Evaluated,
    log: Log,
) -> tuple[dict[str, NetworkRanges], Acceptance]:
    """Find the fewest layers in float with which int8 is accepted: double, then bisect."""
    log("int8 is refused: looking for the layers that cost most")
    ranked = rank_layers(probes, networks)
    best: tuple[dict[str, NetworkRanges], Acceptance] | None = None
    low, count = 0, 1
    while count <= len(ranked) // 2 and best is None:
        tried = keep_worst(networks, ranked, count)
        verdict = _verdict(pack, _calibration(tried, {}, {}), evaluate, exact, "cpu", "int8", log)
        if verdict.accepted:
            best = tried, verdict
        else:
            low, count = count, 2 * count
    if best is None:
        return dict(networks), refused
    while count - low > 1:
        middle = (low + count) // 2
        tried = keep_worst(networks, ranked, middle)
        verdict = _verdict(pack, _calibration(tried, {}, {}), evaluate, exact, "cpu", "int8", log)
        if verdict.accepted:
            best, count = (tried, verdict), middle
        else:
            low = middle
    return best


def _verdict(
    pack: Pack,
    calibration: Calibration,
    evaluate: Evaluate,
    exact: Evaluated,
    device: str,
    precision: str,
    log: Log,
) -> Acceptance:
    _, exact_measures, exact_found = exact
    name, measures, found = evaluate(replace(pack, calibration=calibration), device, precision)
    drift = Drift(types=pack.types).add_all(zip(exact_found, found, strict=True))
    verdict = evaluate_precision(
        exact_measures, measures, drift, device=name, smear_groups=evaluate.smear_groups
    )
    kept = sum(len(network.keep_float) for network in calibration.networks.values())
    log(
        f"{device}:{precision}{f', {kept} layers in float' if kept else ''}: "
        f"{'accepted' if verdict.accepted else 'refused: ' + '; '.join(verdict.reasons)}"
    )
    log(f"  {drift.line()}")
    return verdict


def _calibration(
    networks: Mapping[str, NetworkRanges],
    verdicts: Mapping[str, Acceptance],
    notes: Mapping[str, Any],
) -> Calibration:
    return Calibration.model_validate(
        {
            "schema": 1,
            "networks": dict(networks),
            "verdicts": dict(verdicts),
            "notes": dict(notes),
        }
    )
