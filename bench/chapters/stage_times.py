"""Measure each part of the path in a run of the whole engine: time, rate, and the machine's limit
for it.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import openvino as ov

from rbc_engine.bench.chapters.end_to_end import pass_from_disk
from rbc_engine.bench.instruments.bounds import Limits
from rbc_engine.bench.instruments.engines import watched_engine
from rbc_engine.bench.instruments.fields import BenchFields
from rbc_engine.bench.instruments.stopwatch import NETWORKS, Stopwatch, WatchedNetwork
from rbc_engine.bench.instruments.work import Work, network_work
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.engine import Engine
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.packs.pack import Pack

__all__ = ["Part", "StageReport", "measure_stages", "networks_alone_s"]

_FILES = {
    "network A": "detector.onnx",
    "network B": "box_head.onnx",
    "classifier": "classifier.onnx",
}
_BYTES_PER_VALUE = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}
_STAGE_OF = {
    **{"resize_letterbox": "detect", "network A": "detect", "generate_proposals": "detect"},
    **{"roi_align": "detect", "network B": "detect", "postprocess_detections": "detect"},
    **{"crop_resize": "crop", "classifier": "classify"},
}
PARTS = ("decode", *_STAGE_OF, "call", "write", "between")
"""In the order of the path. `between` is what the lanes do between ops and networks: Python,
batching, copies.
"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Hold one part of the path, per field.

    seconds: time in which it would keep all cores busy. share: of the wall time.
    flops, bytes: its work. limit_seconds: the least time for that on this machine, None where no
    work is counted.
    of_limit: limit_seconds over seconds, 0..1 if the limits are right.
    """

    name: str
    seconds: float
    share: float
    flops: float
    bytes: float
    limit_seconds: float | None
    of_limit: float | None


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """Hold the times of all parts.

    wall_seconds: per field, in a run from disk into tables. idle: share of the time that no part
    accounts for.
    networks_alone_seconds: per field, of the same networks on the same shapes in as many lanes and
    nothing else.
    """

    wall_seconds: float
    parts: list[Part]
    idle: float
    networks_alone_seconds: float

    @property
    def wall_over_networks(self) -> float:
        return self.wall_seconds / self.networks_alone_seconds


def measure_stages(
    engine: Engine, fields: BenchFields, *, limits: Limits, folder: Path, repeats: int
) -> StageReport:
    """Run the fields `repeats` times, after one warm-up, on a device whose ops are timed.

    engine: on the host. folder: for the tables.
    """
    stopwatch = Stopwatch()
    with watched_engine(engine, stopwatch) as watched:
        pass_from_disk(watched, fields, folder)
        stopwatch.reset()
        before = watched.meter.stage_seconds
        began = time.perf_counter()
        regions = sum(pass_from_disk(watched, fields, folder) for _ in range(repeats))
        wall_s = time.perf_counter() - began
        stages = {name: s - before[name] for name, s in watched.meter.stage_seconds.items()}
        alone_s = min(networks_alone_s(stopwatch, lanes=watched.lanes) for _ in range(repeats))
    count = repeats * len(fields.refs)
    written = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    works = _works(engine, fields, regions=regions / count, written=written / len(fields.refs))
    works |= _network_works(engine, stopwatch, fields=count)
    cores = cores_here()
    lane_cores = cores / min(engine.lanes, cores)
    busy = {name: stages[name] / cores for name in ("decode", "write")}
    busy["call"] = stages["call"] * lane_cores / cores
    inside = dict(stopwatch.seconds)
    for name in _STAGE_OF:
        busy[name] = inside.get(name, 0.0) * lane_cores / cores
    around = sum(stages[stage] for stage in set(_STAGE_OF.values())) - sum(inside.values())
    busy["between"] = max(around, 0.0) * lane_cores / cores
    parts = [
        _part(
            name,
            busy[name] / count,
            works.get(name),
            wall_s / count,
            limits,
            precision=engine.choice.device.precision,
        )
        for name in PARTS
    ]
    return StageReport(
        wall_seconds=wall_s / count,
        parts=parts,
        idle=max(0.0, 1 - sum(part.share for part in parts)),
        networks_alone_seconds=alone_s / count,
    )


def networks_alone_s(stopwatch: Stopwatch, *, lanes: int) -> float:
    """Return the wall time of all network calls since the stopwatch was reset, repeated with
    nothing between them.

    Each object serves one thread, as it served one lane.
    """
    kinds: dict[tuple[str, tuple[int, ...]], list[WatchedNetwork]] = {}
    for network in stopwatch.networks:
        if network.calls:
            kinds.setdefault((network.name, network.shape), []).append(network)
    work: list[list[tuple[WatchedNetwork, int]]] = [[] for _ in range(lanes)]
    for networks in kinds.values():
        calls = sum(network.calls for network in networks)
        for index, network in enumerate(networks):
            share = calls * (index + 1) // len(networks) - calls * index // len(networks)
            work[index % lanes].append((network, share))

    def run(own: list[tuple[WatchedNetwork, int]]) -> None:
        for network, calls in own:
            inputs = {network.input: np.array(network.example)}
            for _ in range(calls):
                network.network(inputs)

    with ThreadPoolExecutor(lanes) as pool:
        began = time.perf_counter()
        list(pool.map(run, work))
        return time.perf_counter() - began


def _part(
    name: str,
    seconds: float,
    work: Work | None,
    wall_s: float,
    limits: Limits,
    *,
    precision: str,
) -> Part:
    limit_s = None
    if work is not None:
        limit_s = limits.seconds(work, precision=precision)
    return Part(
        name=name,
        seconds=seconds,
        share=seconds / wall_s,
        flops=work.flops if work else 0.0,
        bytes=work.bytes if work else 0.0,
        limit_seconds=limit_s,
        of_limit=limit_s / seconds if limit_s is not None and seconds else None,
    )


def _works(
    engine: Engine, fields: BenchFields, *, regions: float, written: float
) -> dict[str, Work]:
    """Return the bytes that each part except the networks must move per field: its inputs and
    outputs, each once.
    """
    manifest = engine.pack.manifest
    detector, classifier = manifest.detector, manifest.classifier
    frames = [item.frame for item in fields.decoded if item.frame is not None]
    fits = [
        fit_canvas((frame.height, frame.width), pixel_um=None, settings=detector)
        for frame in frames
    ]
    frame_bytes = float(np.mean([3 * frame.height * frame.width for frame in frames]))
    # Of a frame that is shrunk, two rows for each row of the canvas.
    read = np.mean(
        [
            3 * frame.width * min(frame.height, 2 * fit.resized_hw[0])
            for frame, fit in zip(frames, fits, strict=True)
        ]
    )
    canvas = float(np.mean([prod(fit.canvas_hw) for fit in fits]))
    cells = sum(canvas / stride**2 for stride in detector.strides_px)
    anchors = len(detector.anchor_sizes_px[0]) * len(detector.anchor_aspect_ratios)
    pooled = detector.feature_channels * detector.roi_size**2 * detector.proposals
    levels = detector.strides_px[: detector.roi_levels]
    features = detector.feature_channels * sum(canvas / stride**2 for stride in levels)
    window_px = np.mean(
        [(classifier.window_canvas_px or classifier.patch_px) / fit.scale for fit in fits]
    )
    types = len(manifest.types)
    moved = {
        "decode": fields.bytes + frame_bytes,
        "resize_letterbox": float(read) + 3 * canvas,
        "generate_proposals": 4 * (5 * anchors * cells + 4 * detector.proposals),
        "roi_align": 4.0 * (features + pooled),
        "postprocess_detections": 4.0 * detector.proposals * (5 * _classes(engine.pack) + 4),
        "crop_resize": regions * (3 * float(window_px) ** 2 + 12 * classifier.patch_px**2),
        "call": 4 * regions * (types + 1),
        "write": written,
    }
    return {name: Work(bytes=float(count)) for name, count in moved.items()}


def _classes(pack: Pack) -> int:
    """Return the number of the detector's classes, background included."""
    head = ov.Core().read_model(pack.read("box_head.onnx"))
    return int(head.output("class_logits").get_partial_shape()[1].get_length())


def _network_works(engine: Engine, stopwatch: Stopwatch, *, fields: int) -> dict[str, Work]:
    values = _BYTES_PER_VALUE[engine.choice.device.precision]
    total = {name: Work() for name in NETWORKS.values()}
    known: dict[tuple[str, tuple[int, ...]], Work] = {}
    for network in stopwatch.networks:
        if not network.calls:
            continue
        key = network.name, network.shape
        if key not in known:
            known[key] = _one(engine.pack, network, values)
        total[network.name] += known[key].times(network.calls / fields)
    return total


def _one(pack: Pack, network: WatchedNetwork, bytes_per_value: int) -> Work:
    return network_work(
        pack.read(_FILES[network.name]),
        {network.input: network.shape},
        bytes_per_value=bytes_per_value,
    )
