"""Waiting for what another thread or process does: for the event, not for a time that may suffice.

Nothing here is slower on a quiet machine, and on a busy one nothing fails that only takes longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONG_S = 300.0
"""Whatever takes longer hangs, on however busy a machine."""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


def once(condition: Callable[[], bool], act: Callable[[], object]) -> None:
    """Acts, in another thread, as soon as the condition holds."""

    def run() -> None:
        wait_until(condition)
        act()

    threading.Thread(target=run, daemon=True).start()
