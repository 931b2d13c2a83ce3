"""Keep outcomes until they are read: in order or as ready, and never without bound."""

from __future__ import annotations

import heapq
from collections import deque

from rbc_engine.types.ends import Ended

__all__ = ["Outbox"]


class Outbox:
    """Hold outcomes that were not read yet. Its owner calls it under its own lock.

    in_order: an outcome is held back until all frames submitted before have theirs too.
    most: how many outcomes are kept. A further one pushes out the oldest; put returns how many
    were.
    """

    def __init__(self, *, in_order: bool, most: int) -> None:
        self._in_order = in_order
        self._most = most
        self.released = 0
        """How many outcomes could ever be read."""
        self.gone = 0
        """How many of them were read or discarded."""
        self._ready: deque[Ended] = deque()
        self._held: list[tuple[int, Ended]] = []
        # Numbers of frames without an outcome; a heap in which those with one may remain.
        self._open: list[int] = []
        self._open_set: set[int] = set()

    def __len__(self) -> int:
        """Return the number of outcomes that can be read now."""
        return len(self._ready)

    @property
    def kept(self) -> int:
        """Return the number of outcomes that can be read now or are held back."""
        return len(self._ready) + len(self._held)

    def expect(self, number: int) -> None:
        """Expect the outcome of a new frame. Numbers ascend."""
        if self._in_order:
            heapq.heappush(self._open, number)
            self._open_set.add(number)

    def put(self, ended: Ended) -> int:
        """Add an outcome. Returns how many were discarded for it, 0 or 1."""
        if not self._in_order:
            self._release(ended)
        else:
            self._open_set.discard(ended.number)
            heapq.heappush(self._held, (ended.number, ended))
            while self._open and self._open[0] not in self._open_set:
                heapq.heappop(self._open)
            while self._held and (not self._open or self._held[0][0] < self._open[0]):
                self._release(heapq.heappop(self._held)[1])
        if self.kept <= self._most:
            return 0
        if self._ready:
            self.take()
        else:
            heapq.heappop(self._held)
        return 1

    def take(self) -> Ended:
        """Return the next outcome. Raises IndexError if there is none."""
        ended = self._ready.popleft()
        self.gone += 1
        return ended

    def _release(self, ended: Ended) -> None:
        self._ready.append(ended)
        self.released += 1
