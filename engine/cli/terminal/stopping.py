"""Handle Ctrl-C and SIGTERM: the first one ends the work, the second one the program."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["end_on_second_signal", "stop_on_signal"]

_GRACE_S = 3.0
_EXIT_INTERRUPTED = 130
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signal(stop: threading.Event | None = None) -> Iterator[threading.Event]:
    """Let the fields in flight finish on the first Ctrl-C or SIGTERM; a second one ends the program.

    stop: set by the first one; None creates one.
    """
    stop = threading.Event() if stop is None else stop

    def handle(number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("rbc-engine: stopping; finishing the fields in flight", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in _NUMBERS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def end_on_second_signal() -> Iterator[None]:
    """End the process three seconds after a second Ctrl-C or SIGTERM, if it has not ended by then.

    Python calls its handlers between two steps of the main thread, which may be long in native code.
    The number of a signal is in the pipe at once, and a thread of its own reads it.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ended = threading.Event()
    thread = threading.Thread(
        target=_end_after_second, args=(reading, ended), name="rbc-signals", daemon=True
    )
    thread.start()
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier, warn_on_full_buffer=False)
        ended.set()
        os.close(writing)
        thread.join()
        os.close(reading)


def _end_after_second(reading: int, ended: threading.Event) -> None:
    count = 0
    while count < 2:
        numbers = os.read(reading, 64)
        if not numbers:
            return
        count += sum(number in _NUMBERS for number in numbers)
    if not ended.wait(_GRACE_S):
        os._exit(_EXIT_INTERRUPTED)
