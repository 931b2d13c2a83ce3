"""Define the exit codes of the commands that run fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

__all__ = ["EXIT_DONE", "EXIT_INTERRUPTED", "EXIT_NOTHING_DONE", "EXIT_SOME_FAILED"]

EXIT_DONE = 0

EXIT_NOTHING_DONE = 1

EXIT_SOME_FAILED = 3

EXIT_INTERRUPTED = 130
