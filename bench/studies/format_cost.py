"""Measure what each format costs: seconds, peak memory and bytes for a million regions.

    python -m rbc_engine.bench.studies.format_cost    # every format, each in its own process
    python -m rbc_engine.bench.studies.format_cost --formats csv,coco --regions 100000 --out DIR

Regions come from memory, so that only the writing is measured. Run it on an otherwise idle machine;
the bounds (60 s, 500 MB) are for a million regions, for which all formats together need 10 GB of
disk. The files are removed at the end: ext4 creates files ten times as slowly in the minutes after
many were deleted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sinks.formats.table import FORMATS, open_sink
from rbc_engine.sinks.tables.regions_parquet import RegionsParquet
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import Frame
from rbc_engine.types.results import FieldResult, Regions

__all__ = ["field_results", "measure"]

_TABLE = "parquet"
_FIELDS_A_SLIDE = 200
_FRAME_HW = (480, 640)
_MOST_SECONDS, _MOST_MB = 60.0, 500.0


def field_results(fields: int, *, regions: int, types: int) -> Iterator[FieldResult]:
    """Yield fields on some slides, all with the same regions and the same rendered frame."""
    rng = np.random.default_rng(0)
    height, width = _FRAME_HW
    corners = rng.random((regions, 2)) * [width - 40, height - 40]
    probabilities = rng.random((regions, types), np.float32)
    abnormal_p = rng.random(regions, np.float32)
    found = Regions(
        boxes=np.concatenate([corners, corners + 30], axis=1).astype(np.float32),
        scores=rng.random(regions, np.float32),
        probabilities=probabilities,
        has=probabilities > 0.9,
        abnormal_p=abnormal_p,
        abnormal=abnormal_p > 0.5,
        flags=rng.integers(0, 8, regions, np.uint8),
    )
    frame = Frame(pixels=render_field(seed=0, width=width, height=height, cells=60).pixels)
    for index in range(fields):
        slide = f"slide-{index // _FIELDS_A_SLIDE:03d}"
        yield FieldResult(
            slide=slide,
            field=f"{slide}/field-{index:06d}.jpg",
            width=width,
            height=height,
            regions=found,
            frame=frame,
        )


def measure(name: str, out: Path, *, regions: int, regions_a_field: int) -> dict[str, float | str]:
    """Write `regions` regions in one format, in this process. name: of a format, or 'parquet'."""
    pack = Pack.open(find_pack("chula12"))
    sink = RegionsParquet(out, pack) if name == _TABLE else open_sink(name, out, pack)
    fields = regions // regions_a_field
    results = field_results(fields, regions=regions_a_field, types=len(pack.types))
    first = next(results)
    started, cpu_started = time.perf_counter(), time.process_time()
    for result in itertools.chain([first], results):
        sink.write(result)
    sink.complete()
    sink.finish()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    # Before a million paths are listed, which takes as much memory again.
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "format": name,
        "regions": fields * regions_a_field,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_mb": round(peak_kb / 1024, 1),
        "written_mb": round(written / 2**20, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--formats", default=",".join((_TABLE, *FORMATS)), help="which (all)")
    parser.add_argument("--regions", type=int, default=1_000_000, help="of the run (1000000)")
    parser.add_argument("--per-field", type=int, default=500, help="regions of a field (500)")
    parser.add_argument("--out", type=Path, help="folder to write in (a temporary one)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.formats.split(",")
    if options.here:
        measured = measure(
            names[0], options.out, regions=options.regions, regions_a_field=options.per_field
        )
        print(json.dumps(measured), flush=True)
        return 0
    good = True
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        for name in names:
            out = Path(folder, name)
            out.mkdir()
            # Peak memory never goes down: each format needs a process of its own.
            command = [
                *(sys.executable, "-m", "rbc_engine.bench.studies.format_cost", "--here"),
                *("--formats", name, "--regions", str(options.regions)),
                *("--per-field", str(options.per_field), "--out", str(out)),
            ]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(line, end="", flush=True)
            figures = json.loads(line)
            share = options.regions / 1_000_000
            good &= figures["seconds"] <= _MOST_SECONDS * max(share, 1)
            good &= figures["peak_mb"] <= _MOST_MB
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
