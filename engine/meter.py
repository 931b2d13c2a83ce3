"""Measure where the time of a run goes: seconds per stage, and the time in which any network was
running.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["STAGES", "Meter"]

STAGES = ("decode", "detect", "crop", "classify", "call", "write")
_MOST_SPANS = 4096


class Meter:
    """Add up times from any thread.

    Stage seconds are summed over lanes and decoding threads, so with several of them they can
    exceed the wall time. Network seconds are not: time in which two lanes run a network counts
    once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._spans: list[tuple[float, float]] = []
        self._settled_s = 0.0

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._seconds[stage] += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as part of a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Mark a block as a running network."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add_network(started, time.perf_counter())

    def add_network(self, begin: float, end: float) -> None:
        """Add a network's run from `begin` to `end`, seconds of time.perf_counter(); a GPU reports
        it afterwards.
        """
        with self._lock:
            self._spans.append((begin, end))
            if len(self._spans) > _MOST_SPANS:
                self._spans = _merged(self._spans)
                # A span that began so long ago overlaps with nothing still to come.
                settled = self._spans[: _MOST_SPANS // 2]
                self._settled_s += sum(end - begin for begin, end in settled)
                del self._spans[: len(settled)]

    @property
    def stage_seconds(self) -> dict[str, float]:
        with self._lock:
            return dict(self._seconds)

    @property
    def network_seconds(self) -> float:
        with self._lock:
            return self._settled_s + sum(end - begin for begin, end in _merged(self._spans))


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the time that at least one of the spans covers, as spans that do not overlap, in
    order.
    """
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged
