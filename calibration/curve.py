"""Measure how many fields are enough: the error of ranges from more and more fields."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

from rbc_engine.calibration.collect import observe_fields
from rbc_engine.calibration.observing_device import ObservingDevice
from rbc_engine.calibration.ranges import NetworkProbe, ranges_by
from rbc_engine.packs.calibration import NETWORKS
from rbc_engine.packs.pack import Pack

__all__ = ["field_curve"]

_METHOD = "mse"


def field_curve(
    pack: Pack, paths: Sequence[Path], *, log: Callable[[str], None]
) -> list[tuple[int, dict[str, float]]]:
    """Measure how much int8 changes each network's outputs, with ranges from 1, 2, 4... fields.

    All are measured on the same inputs, which come from all the fields.
    """
    counts = [2**power for power in range(len(paths).bit_length()) if 2**power < len(paths)]
    counts.append(len(paths))
    device = ObservingDevice()
    seen = []
    for begin, end in zip([0, *counts], counts, strict=False):
        observe_fields(pack, paths[begin:end], device=device, log=log)
        seen.append(copy.deepcopy(device.histograms))
    probes = {name: NetworkProbe(name, pack.read(name), device.inputs(name)) for name in NETWORKS}
    return [
        (
            count,
            {name: probes[name].error(ranges_by(histograms[name], _METHOD)) for name in NETWORKS},
        )
        for count, histograms in zip(counts, seen, strict=True)
    ]
