"""Keep what has threads from being used in a process forked from its own, where it would hang."""

from __future__ import annotations

import os
import threading
from typing import Any

from rbc_engine.errors import RbcError

__all__ = ["OwnCondition", "OwnProcess"]


class OwnProcess:
    """Remember the process that made this. what: it was made with, for the error."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._process = os.getpid()

    @property
    def is_here(self) -> bool:
        """Return whether this is that process still."""
        return os.getpid() == self._process

    def check(self) -> None:
        """Raise RbcError in a process forked from that one."""
        if not self.is_here:
            raise RbcError(
                f"this {self._what} belongs to process {self._process}, and cannot be used in "
                f"{os.getpid()}, which was forked from it: its threads are not there; open one in "
                "each process, or start processes by 'spawn' instead of 'fork'"
            )


class OwnCondition(threading.Condition):
    """Raise RbcError instead of waiting for threads that a forked process does not have."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._own = OwnProcess(what)

    def __enter__(self) -> Any:
        self._own.check()
        return super().__enter__()
