"""Handle Ctrl-C and SIGTERM: the first one ends the work, not the program."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["stop_on_signal"]


@contextmanager
def stop_on_signal(stop: threading.Event | None = None) -> Iterator[threading.Event]:
    """Lets the first Ctrl-C or SIGTERM finish the fields in flight; a second one ends the program.

    stop: is set then; None makes one.
    """
    stop = threading.Event() if stop is None else stop

    def handle(number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("rbc-engine: stopping; finishing the fields in flight", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
