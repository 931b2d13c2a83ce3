"""Where the time of a run goes: seconds a stage, and the time in which any network was running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["STAGES", "Meter"]

STAGES = ("decode", "detect", "crop", "classify", "call", "write")


class Meter:
    """Adds up times from any thread.

    Stage seconds are summed over lanes and decoding threads, so with several of them they can exceed the wall
    time. Network seconds are not: time in which two lanes run a network counts once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._running = 0
        self._since = 0.0
        self._network_seconds = 0.0

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._seconds[stage] += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a block as part of a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Marks a block as a running network."""
        with self._lock:
            if self._running == 0:
                self._since = time.perf_counter()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._network_seconds += time.perf_counter() - self._since

    @property
    def stage_seconds(self) -> dict[str, float]:
        with self._lock:
            return dict(self._seconds)

    @property
    def network_seconds(self) -> float:
        with self._lock:
            return self._network_seconds
