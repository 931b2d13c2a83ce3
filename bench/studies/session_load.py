"""Measure what a session costs, and its latency and throughput under load.

    python -m rbc_engine.bench.studies.session_load             # lanes that sleep: the session only
    python -m rbc_engine.bench.studies.session_load --real      # also the shipped pack's networks
    python -m rbc_engine.bench.studies.session_load --camera    # also the DemoCamera, full rate

Prints each figure with its bound. Every part warms up first. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.engine import Engine
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.ends import FrameCounts
from rbc_engine.types.frames import Decoded, FieldRef, Frame

__all__ = ["Figure", "Load", "drive", "measure_capacity", "measure_engine", "measure_overhead"]

_STUB_FRAME_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Hold one line of the report. most: the bound; least: the bound if lower is worse."""

    name: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def ok(self) -> bool:
        return (self.most is None or self.value <= self.most) and (
            self.least is None or self.value >= self.least
        )

    def __str__(self) -> str:
        bound = f"≤ {self.most:g}" if self.most is not None else ""
        bound = f"≥ {self.least:g}" if self.least is not None else bound
        verdict = "" if not bound else "ok" if self.ok else "MISSED"
        return f"{self.name:58} {self.value:10.4g}  {bound:9} {verdict}"


@dataclass(frozen=True, kw_only=True)
class Load:
    """Hold the outcome of a steady stream of frames: latencies of the done frames, without the
    first tenth of them.
    """

    p50_s: float
    p99_s: float
    done_per_s: float
    counts: FrameCounts


def drive(
    engine: Engine, frame: UInt8, *, fps: float, frames: int, on_full: str, copy: bool = True
) -> Load:
    """Submit a frame repeatedly at a steady rate to a new session, whose outcomes a second thread
    reads.
    """
    latencies_s: list[float] = []
    ends_s: list[float] = []

    def on_ended(ended: object) -> None:
        if getattr(ended, "ok", False):
            latencies_s.append(ended.latency_s)  # type: ignore[attr-defined]
            ends_s.append(time.perf_counter())

    hw = (frame.shape[0], frame.shape[1])
    with engine.session(on_full=on_full, on_ended=on_ended, warm_up_hw=hw) as session:
        due_s = time.perf_counter()
        for index in range(frames):
            session.submit(frame, field=str(index), copy=copy)
            due_s += 1 / fps
            time.sleep(max(0.0, due_s - time.perf_counter()))
        session.drain(timeout_s=600)
    skip = len(latencies_s) // 10
    served = np.array(latencies_s[skip:])
    span_s = ends_s[-1] - ends_s[skip] if len(ends_s) > skip + 1 else float("inf")
    return Load(
        p50_s=float(np.quantile(served, 0.5)),
        p99_s=float(np.quantile(served, 0.99)),
        done_per_s=(len(served) - 1) / span_s,
        counts=session.counts,
    )


def measure_overhead(*, frames: int = 2000, fps: float = 250.0) -> list[Figure]:
    """Measure the time from submit to callback, with lanes that do nothing."""
    frame = np.zeros((480, 640, 3), np.uint8)
    with stub_engine(frame_s=0.0, regions=30) as engine:
        drive(engine, frame, fps=fps, frames=100, on_full="block")
        load = drive(engine, frame, fps=fps, frames=frames, on_full="block")
    return [
        Figure(name="overhead, 640x480 copied, p50, ms", value=load.p50_s * 1e3),
        Figure(name="overhead, 640x480 copied, p99, ms", value=load.p99_s * 1e3, most=1.0),
    ]


def measure_capacity(engine: Engine, frame: UInt8, *, frames: int) -> float:
    """Return frames per second of the batch engine, Engine.run, on frames in memory, without the
    first tenth.
    """

    def source() -> Iterator[Decoded]:
        for index in range(frames):
            ref = FieldRef(slide="s", field=str(index), path=Path())
            yield Decoded(ref=ref, frame=Frame(pixels=frame, slide="s", field=str(index)))

    times_s = []
    for _ in engine.run(source()):
        times_s.append(time.perf_counter())
    # The results of a batch come at once: from the last one of a batch to the last one of another.
    batch = engine.choice.lane_frames
    skip = -(-max(frames // 10, 2 * engine.choice.lanes * batch) // batch) * batch - 1
    last = len(times_s) // batch * batch - 1
    return (last - skip) / (times_s[last] - times_s[skip])


def measure_engine(name: str, engine: Engine, frame: UInt8, *, seconds: float) -> list[Figure]:
    """Measure latency at 70 % of the capacity, and both latency and throughput at 300 %."""
    estimate = measure_capacity(engine, frame, frames=40)
    capacity = measure_capacity(engine, frame, frames=max(60, int(estimate * seconds)))
    light = drive(
        engine,
        frame,
        fps=0.7 * capacity,
        frames=max(40, int(0.7 * capacity * seconds)),
        on_full="block",
        copy=False,
    )
    heavy = drive(
        engine,
        frame,
        fps=3 * capacity,
        frames=max(120, int(3 * capacity * seconds)),
        on_full="drop_oldest",
        copy=False,
    )
    assert light.counts.add_up
    assert heavy.counts.add_up
    return [
        Figure(name=f"{name}: batch engine, frames/s", value=capacity),
        Figure(name=f"{name}: 70 %, p50, ms", value=light.p50_s * 1e3),
        Figure(name=f"{name}: 70 %, p99 over p50", value=light.p99_s / light.p50_s, most=2.0),
        Figure(
            name=f"{name}: 300 % drop_oldest, p99 over p99 at 70 %",
            value=heavy.p99_s / light.p99_s,
            most=2.0,
        ),
        Figure(
            name=f"{name}: 300 % drop_oldest, frames/s over batch engine's",
            value=heavy.done_per_s / capacity,
            least=0.95,
        ),
    ]


def measure_camera(*, seconds: float) -> list[Figure]:
    """Measure the DemoCamera at its full rate, 1920x1080 RGB: frames made, and frames that no count
    includes.
    """
    from rbc_engine.sources.camera import feed_sequence, open_core

    core = open_core(width=1920, height=1080)
    core.setProperty("Camera", "FastImage", "1")
    core.setExposure(0.1)
    last = -1

    def on_ended(ended: object) -> None:
        nonlocal last
        last = max(last, int(ended.field.removeprefix("frame-")))  # type: ignore[attr-defined]

    with stub_engine(frame_s=_STUB_FRAME_S) as engine:
        with engine.session(on_full="drop_oldest", on_ended=on_ended) as session:
            report = feed_sequence(core, session, seconds=seconds)
        counts = session.counts
    made = last + 1  # by the numbers that Micro-Manager gives its images
    counted = counts.done + counts.dropped
    return [
        Figure(name="DemoCamera 1920x1080 RGB, frames/s", value=made / seconds),
        Figure(name="DemoCamera, lost in its buffer, counted", value=report.lost),
        Figure(name="DemoCamera, uncounted frames", value=abs(made - counted), most=0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load (20)")
    parser.add_argument("--real", action="store_true", help="also with the networks")
    parser.add_argument("--camera", action="store_true", help="also the DemoCamera")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    parts: list[Callable[[], list[Figure]]] = [measure_overhead]

    def stub() -> list[Figure]:
        with stub_engine(frame_s=_STUB_FRAME_S, regions=30) as engine:
            blank = np.zeros((480, 640, 3), np.uint8)
            return measure_engine("stub", engine, blank, seconds=options.seconds)

    def real() -> list[Figure]:
        from rbc_engine.sources.synthetic.field import render_field

        with Engine.open("chula12", device="auto") as engine:
            field = render_field(seed=1, width=640, height=480, cells=40).pixels
            return measure_engine("real", engine, field, seconds=options.seconds)

    parts.append(stub)
    if options.real:
        parts.append(real)
    if options.camera:
        parts.append(lambda: measure_camera(seconds=options.seconds))
    figures = []
    for part in parts:
        for figure in part():
            figures.append(figure)
            if not options.json:
                print(figure, flush=True)
    if options.json:
        print(json.dumps([asdict(figure) | {"ok": figure.ok} for figure in figures], indent=2))
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
