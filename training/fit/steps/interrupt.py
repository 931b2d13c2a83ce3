"""Ctrl-C during a training: the step in hand is finished, so that a resumed training takes the same steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

__all__ = ["InterruptGuard"]


class InterruptGuard:
    """Notes the first Ctrl-C of a `with` block instead of raising it; the second raises KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, it notes nothing.

    requested: whether there was one.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> InterruptGuard:
        self._here = threading.current_thread() is threading.main_thread()
        if self._here:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._here:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
