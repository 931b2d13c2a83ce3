"""Do the work of a sink behind it, in a few threads, and take its results in order."""

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
    """Call functions in threads, and `take` with their results: in the order of `do`, and in the
    thread that calls it.

    As many calls as threads are running or wait to be taken; then `do` waits for the oldest. An
    exception of a function is raised by a later `do`, or by `finish`.

    workers: threads; None: one per core that this process may use, four at most.
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
        """Wait for all started calls, and take their results."""
        while self._waiting:
            self._take(self._waiting.popleft().result())
        self.close()

    def close(self) -> None:
        """Drop what is not started, wait for the rest, and leave no thread. May be called again."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
