"""Work ahead of a reader, in a few threads, in order, and never too far ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from rbc_engine.closing import Closing
from rbc_engine.errors import UsageError

__all__ = ["ReadAhead"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class ReadAhead(Closing, Generic[Item, Result]):
    """Call a function on each item in `workers` threads and yield the results in the order of the
    items.

    Iterate it once, and close it, from one thread. At most `ahead` results are being made or wait
    to be read, however many items there are; for every worker to be busy it must not be less than
    `workers`. An exception of the function is raised where its result would be read. However the
    reading ends (last item, break, exception, Ctrl-C), leaving the `with` block drops what is not
    started, waits for the rest, and leaves no thread.

    Raises UsageError if workers or ahead is less than 1.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        workers: int,
        ahead: int,
    ) -> None:
        for name, value in (("workers", workers), ("ahead", ahead)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1 (got {value})")
        self._function = function
        self._items = items
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="rbc-read-ahead")

    def __iter__(self) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in self._items:
                waiting.append(self._pool.submit(self._function, item))
                if len(waiting) == self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            self.close()

    def close(self) -> None:
        """Stop the threads; wait for calls that have started. May be called again."""
        self._pool.shutdown(wait=True, cancel_futures=True)
