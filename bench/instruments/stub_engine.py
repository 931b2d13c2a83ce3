"""Provide an engine whose lanes sleep instead of running networks, to measure and test what
surrounds them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rbc_engine.devices.base import DeviceChoice
from rbc_engine.devices.choose import open_device
from rbc_engine.engine import Engine
from rbc_engine.lanes.base import AnyLane
from rbc_engine.lanes.lanes import Lanes
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.meter import Meter
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.types.frames import Decoded
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = ["StubLane", "engine_of_lanes", "stub_engine", "stub_regions"]


class StubLane:
    """Take the place of a Lane.

    frame_s: seconds per frame, slept without the GIL, as a network would run.
    regions: number in each frame.
    hook: called with each batch before the sleep; may raise, or take its time.
    """

    def __init__(
        self,
        *,
        types: int,
        frame_s: float,
        regions: int,
        hook: Callable[[Sequence[Decoded]], object] | None,
    ) -> None:
        self._frame_s = frame_s
        self._hook = hook
        self._regions = stub_regions(regions, types=types)

    def prepare(self) -> None:
        """Do nothing: there is nothing to compile."""

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def analyze(self, batch: Sequence[Decoded], *, keep_frames: bool = False) -> list[FieldResult]:
        if self._hook is not None:
            self._hook(batch)
        if self._frame_s:
            time.sleep(self._frame_s * len(batch))
        return [
            FieldResult(
                slide=decoded.ref.slide,
                field=decoded.ref.field,
                width=decoded.frame.width if decoded.frame else 0,
                height=decoded.frame.height if decoded.frame else 0,
                regions=self._regions,
                frame=decoded.frame if keep_frames else None,
            )
            for decoded in batch
        ]


def stub_engine(
    *,
    frame_s: float = 0.0,
    lanes: int = 2,
    lane_frames: int = 2,
    batch_frames: int = 1,
    regions: int = 20,
    hook: Callable[[Sequence[Decoded]], object] | None = None,
) -> Engine:
    """Return an engine of the shipped pack on the CPU whose lanes sleep. lane_frames, batch_frames:
    as in DeviceChoice.
    """
    pack = Pack.open(find_pack("chula12"))
    choice = replace(
        open_device("cpu", lanes=lanes), lane_frames=lane_frames, batch_frames=batch_frames
    )

    types = len(pack.types)
    return engine_of_lanes(
        pack,
        choice,
        lambda _: StubLane(types=types, frame_s=frame_s, regions=regions, hook=hook),
    )


def engine_of_lanes(
    pack: Pack, choice: DeviceChoice, make: Callable[[DeviceChoice], AnyLane]
) -> Engine:
    """Return an engine of a pack whose lanes `make` makes from the device. They do not use
    its meter.
    """
    prior = FieldPrior.of(pack.manifest.classifier)
    return Engine(pack, Lanes([choice], make), Meter(), field_prior=prior)


def stub_regions(count: int, *, types: int, seed: int = 0) -> Regions:
    """Return random regions of a field of 640 by 480 px, with threshold 0.5."""
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2), np.float32) * np.array([600, 440], np.float32)
    probabilities = rng.random((count, types), np.float32)
    abnormal_p = rng.random(count, np.float32)
    return Regions.by_area(
        boxes=np.concatenate([corners, corners + 40], axis=1).astype(np.float32),
        scores=rng.random(count, np.float32),
        probabilities=probabilities,
        has=probabilities >= 0.5,
        abnormal_p=abnormal_p,
        abnormal=abnormal_p >= 0.5,
        flags=np.zeros(count, np.uint8),
    )
