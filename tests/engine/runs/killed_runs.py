"""Run `rbc-engine run` on lanes without networks, in forked children that are killed on cue.

A program of its own: reads one JSON a line from stdin, answers one a line. {"arguments": [...],
"log": PATH} with

    "kill_event": N    SIGKILL itself at its Nth event: a call that opens, renames, removes or
                       makes a file below --out, or a write to the journal, which is then cut
                       short somewhere
    "kill_after_s": S  is killed from outside after so long
    "most_bytes": N    cannot make a file longer than so

The answer: {"status": exit code or -signal, "events": how many, "output": what it printed}. Every
field that is analysed is written to "log".
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import time
import zlib
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

# What the command imports late: once, before the forks.
import rbc_engine.runs.run
import rbc_engine.runs.run_folder
from rbc_engine.bench.instruments.stub_engine import StubLane, engine_of_lanes, stub_regions
from rbc_engine.cli import app
from rbc_engine.devices.cpu.kind import CPU
from rbc_engine.engine import Engine
from rbc_engine.errors import RbcError
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sinks.files.records import RecordWriter
from rbc_engine.types.frames import HOST

import rbc_engine.cli.terminal.compile_watch  # noqa: F401  isort: skip
import rich.progress

import rich.table  # noqa: F401  isort: skip

PACK = Pack.open(find_pack("chula12"))


class Events:
    """Counts what changes files, and ends the process at one of them."""

    def __init__(self, out: str, kill_event: int | None) -> None:
        self.count = 0
        self._out = out
        self._kill_event = kill_event
        sys.addaudithook(self._audit)

    def now(self) -> bool:
        self.count += 1
        return self.count == self._kill_event

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"):
            return
        if str(arguments[0]).startswith(self._out) and self.now():
            os.kill(os.getpid(), signal.SIGKILL)


class CutFile:
    """A journal's file whose last write stops somewhere."""

    def __init__(self, file: object, events: Events) -> None:
        self._file = file
        self._events = events

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        if self._events.now():
            self._file.write(data[: random.randrange(len(data))])
            os.kill(os.getpid(), signal.SIGKILL)
        return self._file.write(data)


class FieldLane(StubLane):
    """Regions that depend on the field alone."""

    def __init__(self, log: int, frame_s: float) -> None:
        super().__init__(types=len(PACK.types), frame_s=frame_s, regions=1, hook=None)
        self._log = log

    def analyze(self, batch, *, keep_frames=False):
        results = []
        for decoded, result in zip(
            batch, super().analyze(batch, keep_frames=keep_frames), strict=True
        ):
            os.write(self._log, decoded.ref.field.encode() + b"\n")
            name = {"path": str(decoded.ref.path), "seconds": 0.5}
            if decoded.frame is None:
                results.append(replace(result, regions=None, error=decoded.error, **name))
                continue
            seed = zlib.crc32(decoded.ref.field.encode())
            regions = stub_regions(seed % 40, types=len(PACK.types), seed=seed)
            results.append(replace(result, regions=regions, **name))
        return results


def stub(log: str, frame_s: float, precision: str) -> Engine:
    device = SimpleNamespace(
        name="none", backend="none", precision=precision, enter=lambda: None, close=lambda: None
    )
    choice = SimpleNamespace(
        device=device,
        kind=CPU,
        place=HOST,
        lanes=2,
        lane_frames=2,
        batch_frames=1,
        batch_patches=(8,),
        threads=1,
        notes=[],
        doubts=[],
    )
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return engine_of_lanes(PACK, choice, lambda _: FieldLane(descriptor, frame_s))


def child(order: dict, answer: int) -> None:
    arguments = order["arguments"]
    if "most_bytes" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["most_bytes"],) * 2)
    events = Events(arguments[arguments.index("--out") + 1], order.get("kill_event"))
    made = RecordWriter.__init__

    def make(writer, path, file, **options):
        made(writer, path, CutFile(file, events), **options)

    def opened(_pack, *, precision, **_):
        precision = "fp32" if precision == "auto" else precision
        return stub(order["log"], order.get("frame_s", 0.0), precision)

    printed = io.StringIO()
    with (
        mock.patch.object(RecordWriter, "__init__", make),
        mock.patch.object(Engine, "open", opened),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        try:
            status = app(["run", *arguments], standalone_mode=False)
        except RbcError as error:
            print(error)
            status = 1
    reply = {"status": status, "events": events.count, "output": printed.getvalue()}
    os.write(answer, json.dumps(reply).encode())


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            child(order, writing)
            os._exit(0)
        os.close(writing)
        if "kill_after_s" in order:
            time.sleep(order["kill_after_s"])
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            reply = json.loads(pipe.read() or b"{}")
        _, code = os.waitpid(pid, 0)
        if os.WIFSIGNALED(code):
            reply = {"status": -os.WTERMSIG(code), "events": 0, "output": ""}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
