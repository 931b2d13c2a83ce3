"""Open engines to be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rbc_engine.bench.instruments.stopwatch import Stopwatch, WatchedDevice
from rbc_engine.bench.settings import BenchSettings
from rbc_engine.engine import Engine

__all__ = ["open_engine", "watched_engine"]


@contextmanager
def open_engine(
    settings: BenchSettings, *, lanes: int | None = None, batch: int | None = None
) -> Iterator[Engine]:
    """Open the engine as `run` would. lanes, batch: instead of those of the settings.

    Raises UsageError for an unknown device or precision, DeviceError for one that is not available.
    """
    batch = batch or settings.batch
    with Engine.open(
        settings.pack,
        device=settings.device,
        precision=settings.precision,
        lanes=lanes or settings.lanes,
        estimate_scale=False,  # the same work for every field, and the peers estimate nothing
    ) as engine:
        if batch is None:
            yield engine
            return
        choices = [
            replace(
                choice,
                lane_frames=batch,
                # Networks that take one frame at a time continue to do so.
                batch_frames=batch if choice.batch_frames > 1 else 1,
            )
            for choice in engine.choices
        ]
        with Engine.on(engine.pack, *choices) as batched:
            yield batched


@contextmanager
def watched_engine(engine: Engine, stopwatch: Stopwatch) -> Iterator[Engine]:
    """Open the same pack on the same device, with every op and network of every lane timed."""
    choices = [
        replace(choice, device=WatchedDevice(choice.device, stopwatch)) for choice in engine.choices
    ]
    with Engine.on(engine.pack, *choices) as watched:
        yield watched
