"""The batch of the next step is drawn while the step in hand is computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Prefetch"]

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Calls `draw` for the next step in another thread.

    draw: a batch must depend on nothing but the step's number, and on no generator that is shared between threads:
        then a training that goes on from any step takes the same batches.
    steps: of the training; none is drawn beyond.
    """

    def __init__(self, draw: Callable[[int], T], *, steps: int) -> None:
        self._draw = draw
        self._steps = steps
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._next: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        """Returns the batch of a step. Raises what `draw` raised."""
        if self._next is not None and self._next[0] == step:
            batch = self._next[1].result()
        else:
            batch = self._pool.submit(self._draw, step).result()
        self._next = None
        if step + 1 < self._steps:
            self._next = (step + 1, self._pool.submit(self._draw, step + 1))
        return batch

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
