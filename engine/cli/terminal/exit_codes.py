"""Define the exit codes of the commands that run fields."""

from __future__ import annotations

__all__ = ["EXIT_DONE", "EXIT_INTERRUPTED", "EXIT_NOTHING_DONE", "EXIT_SOME_FAILED", "exit_code"]

EXIT_DONE = 0

EXIT_NOTHING_DONE = 1

EXIT_SOME_FAILED = 3

EXIT_INTERRUPTED = 130


def exit_code(*, done: int, failed: int, interrupted: bool) -> int:
    """Returns the code of a command that ends so: done and failed count fields or frames."""
    if interrupted:
        return EXIT_INTERRUPTED
    if not done:
        return EXIT_NOTHING_DONE
    return EXIT_SOME_FAILED if failed else EXIT_DONE
