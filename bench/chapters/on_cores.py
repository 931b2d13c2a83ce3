"""Measure the engine's rate on some of the cores, in a process of its own.

    python -m rbc_engine.bench.chapters.on_cores CORES SECONDS CELLS PACK DEVICE PRECISION

Prints JSON: fields_per_s, cells_per_s, watts (null without a counter) and why, precision. Of
rendered fields of 640x480 px with so many cells in memory, after a warm-up pass.
"""

from __future__ import annotations

import json
import os
import sys
import time

__all__ = ["main"]

_AT_ONCE = 8


def main(arguments: list[str]) -> int:
    cores, seconds, cells, pack, device, precision = arguments
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    # Only now: the libraries create a thread for each core that they see.
    from pathlib import Path

    from rbc_engine.bench.instruments.counters import read_energy_uj, spent_joules
    from rbc_engine.engine import Engine
    from rbc_engine.sources.synthetic.field import render_field
    from rbc_engine.types.frames import Decoded, FieldRef, Frame

    pixels = render_field(seed=1, width=640, height=480, cells=int(cells), touching=0.0).pixels
    ref = FieldRef(slide="", field="", path=Path())
    batch = [Decoded(ref=ref, frame=Frame(pixels=pixels))] * _AT_ONCE
    with Engine.open(pack, device=device, precision=precision) as engine:
        list(engine.run(iter(batch)))
        done = found = 0
        before = read_energy_uj()
        began = time.perf_counter()
        while not done or time.perf_counter() - began < float(seconds):
            results = list(engine.run(iter(batch)))
            done += len(results)
            found += sum(len(result.regions or ()) for result in results)
        took = time.perf_counter() - began
        after = read_energy_uj()
        watts, gap = None, before if isinstance(before, str) else ""
        if not isinstance(before, str) and not isinstance(after, str):
            watts = spent_joules(before, after) / took
        rates = {"fields_per_s": done / took, "cells_per_s": found / took}
        precision = engine.choice.device.precision
        print(json.dumps({**rates, "watts": watts, "gap": gap, "precision": precision}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
