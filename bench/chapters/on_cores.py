"""Measure the engine's rate on some of the cores, in a process of its own.

    python -m rbc_engine.bench.chapters.on_cores CORES SECONDS PACK DEVICE PRECISION

Prints {"fields_per_s": ...}: rendered fields of 640x480 px in memory, after a warm-up pass.
"""

from __future__ import annotations

import json
import os
import sys
import time

__all__ = ["main"]

_CELLS = 20
_AT_ONCE = 8


def main(arguments: list[str]) -> int:
    cores, seconds, pack, device, precision = arguments
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    # Only now: the libraries create a thread for each core that they see.
    from pathlib import Path

    from rbc_engine.engine import Engine
    from rbc_engine.sources.synthetic.field import render_field
    from rbc_engine.types.frames import Decoded, FieldRef, Frame

    pixels = render_field(seed=1, width=640, height=480, cells=_CELLS, touching=0.0).pixels
    ref = FieldRef(slide="", field="", path=Path())
    batch = [Decoded(ref=ref, frame=Frame(pixels=pixels))] * _AT_ONCE
    with Engine.open(pack, device=device, precision=precision) as engine:
        list(engine.run(iter(batch)))
        done = 0
        began = time.perf_counter()
        while not done or time.perf_counter() - began < float(seconds):
            done += len(list(engine.run(iter(batch))))
        print(json.dumps({"fields_per_s": done / (time.perf_counter() - began)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
