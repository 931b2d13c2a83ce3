"""Read damaged files for some time, and say what was found.

    python tests/fuzz/mutate.py --seconds 3600 --log mutants.json

Each reader works in a process of its own. A crash, a hang of more than 20 s, an error that is none
of the program's own, and more than 2 GB of memory are faults: the mutant is kept, and the exit code
is 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.readers import READERS, Reader

__all__ = ["hunt", "main"]

HANG_S = 20.0
MOST_BYTES = 2 << 30
_TOLD_S = 0.2


def _work(reader: Reader, seed: int, first: int, seconds: float, told: Connection) -> None:
    """Read mutants in a child process; tell each fault, and at last how many were accepted."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    counts = {"mutants": 0, "accepted": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = reader.mutants(folder, seed)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        until = time.monotonic() + seconds
        number = first
        while time.monotonic() < until:
            data = make(number)
            told.send(("begins", number, data))
            try:
                reader.read(data, folder)
                counts["accepted"] += 1
            except reader.refusals:
                pass
            except BaseException:
                told.send(("error", number, traceback.format_exc(limit=-6)))
            counts["mutants"] += 1
            number += 1
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        told.send(("end", number, counts | {"grown_bytes": grown}))


def hunt(
    reader: Reader, *, seconds: float, seed: int = 0, most_faults: int = 20
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Read mutants for some time. Returns counts, and the faults: what, and the mutant."""
    context = multiprocessing.get_context("fork")
    counts = {"mutants": 0, "accepted": 0, "grown_bytes": 0}
    faults: list[dict[str, Any]] = []
    until = time.monotonic() + seconds
    number = 0
    while (left := until - time.monotonic()) > 0 and len(faults) < most_faults:
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_work, args=(reader, seed, number, left, there), daemon=True)
        child.start()
        there.close()
        data, what, ended = b"", "", False
        while not what and not ended:
            if not here.poll(HANG_S):
                what = f"a hang of more than {HANG_S:.0f} s"
                break
            try:
                kind, number, value = here.recv()
            except EOFError:
                child.join()
                what = f"a crash, exit code {child.exitcode}"
                break
            if kind == "begins":
                data = value
                counts["mutants"] += 1
            elif kind == "error":
                faults.append({"what": value, "number": number, "mutant": data.hex()})
            else:
                ended = True
                counts["accepted"] += value["accepted"]
                counts["grown_bytes"] = max(counts["grown_bytes"], value["grown_bytes"])
                if value["grown_bytes"] > MOST_BYTES:
                    what = f"{value['grown_bytes']} bytes of memory"
        if what:
            faults.append({"what": what, "number": number, "mutant": data.hex()})
        child.kill()
        child.join()
        number += 1
    return counts, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20.0, help="for all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument("--log", type=Path, help="JSON of what was found")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    log: dict[str, Any] = {}
    bad = False
    for name in options.readers:
        counts, faults = hunt(
            READERS[name], seconds=options.seconds / len(options.readers), seed=options.seed
        )
        share = counts["accepted"] / max(counts["mutants"], 1)
        print(
            f"{name:16} {counts['mutants']:8} mutants, {share:4.0%} accepted, "
            f"{counts['grown_bytes'] >> 20:5} MiB, {len(faults)} faults",
            flush=True,
        )
        for fault in faults:
            print(f"  mutant {fault['number']} of {name}: {fault['what']}", file=sys.stderr)
        bad = bad or bool(faults)
        log[name] = {**counts, "faults": faults}
    if options.log:
        options.log.write_text(json.dumps({"seed": options.seed, "readers": log}, indent=1))
    sys.exit(bad)


if __name__ == "__main__":
    main()
