"""How many fields are enough: what ranges of ever more of them cost, on the same inputs."""

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
    """For 1, 2, 4, ... fields, and for all: by how much int8 with their ranges changes each network's outputs.

    Judged on inputs from all the fields.
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
