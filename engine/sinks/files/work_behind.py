"""Work of a sink that is done behind it, in a few threads, its results taken in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["WorkBehind"]

Result = TypeVar("Result")

_MOST_WORKERS = 4


class WorkBehind(Generic[Result]):
    """Calls functions in threads, and `take` with what they return: in the order of `do`, and in the thread that calls it.

    As many calls as threads are in the making or wait to be taken; then `do` waits for the oldest. What a function
    raises is raised by a later `do`, or by `finish`.

    workers: threads; None: one a core that this process may use, four at most.
    """

    def __init__(self, take: Callable[[Result], object], *, workers: int | None = None) -> None:
        self._take = take
        self._workers = workers or min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[Result]] = deque()

    def do(self, function: Callable[..., Result], *arguments: object) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="rbc-sink")
        while len(self._waiting) >= self._workers:
            self._take(self._waiting.popleft().result())
        self._waiting.append(self._pool.submit(function, *arguments))

    def finish(self) -> None:
        """Waits for all that was begun, and takes it."""
        while self._waiting:
            self._take(self._waiting.popleft().result())
        self.close()

    def close(self) -> None:
        """Drops what is not begun, waits for what is, and leaves no thread. May be called again."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
