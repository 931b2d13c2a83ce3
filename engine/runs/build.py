"""Compile a pack for a device ahead of its first run, and verify its results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rbc_engine.devices.base import BuildWatch
from rbc_engine.engine import Engine
from rbc_engine.stats.drift import Drift
from rbc_engine.types.frames import Decoded, FieldRef, Frame

__all__ = ["BuildReport", "build_engine"]


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """Describe what was built and verified.

    devices: name, library and precision of each. golden: of each, how its results for the golden
    inputs differ from those of the CPU in fp32.
    keeps_networks: whether what was compiled is kept on the disk. seconds: wall time. notes: why no
    faster device or precision was chosen, and what had to be given up.
    """

    devices: tuple[str, ...]
    lanes: int
    golden: tuple[Drift, ...]
    keeps_networks: bool
    seconds: float
    notes: tuple[str, ...]


def build_engine(
    pack: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    lanes: int | None = None,
    frame_sizes: Sequence[tuple[int, int]] = (),
    watch: BuildWatch | None = None,
) -> BuildReport:
    """Compile the networks of a pack and run its golden inputs.

    For a GPU the networks are stored on disk, for exactly this pack, GPU, TensorRT and canvas; for
    a CPU compiling takes seconds and is repeated at each start, so here it is only verified.

    frame_sizes: widths and heights of images whose canvases are compiled too; that of the golden
    inputs always is.

    Raises DeviceError if the device is not available, a network does not compile, or a golden input
    comes out wrong: then nothing of the engine is kept.
    """
    started = time.perf_counter()
    with Engine.open(pack, device=device, precision=precision, lanes=lanes, watch=watch) as engine:
        golden = engine.check_golden()
        for width, height in frame_sizes:
            _run_blank(engine, width, height)
        return BuildReport(
            devices=tuple(
                f"{choice.device.name}, {choice.device.backend}, {choice.device.precision}"
                for choice in engine.choices
            ),
            lanes=engine.lanes,
            golden=tuple(golden),
            keeps_networks=any(choice.kind.keeps_networks for choice in engine.choices),
            seconds=time.perf_counter() - started,
            notes=(*engine.notes, *engine.doubts),
        )


def _run_blank(engine: Engine, width: int, height: int) -> None:
    """Run frames of one size through every lane's networks, one by one and as full batches."""
    blank = Frame(pixels=np.full((height, width, 3), 255, np.uint8), field=f"{width}x{height}")
    engine.analyze(blank)
    decoded = Decoded(ref=FieldRef(slide="", field=blank.field, path=Path()), frame=blank)
    for choice in engine.choices:
        for _ in engine.run([decoded] * choice.lane_frames):
            pass
