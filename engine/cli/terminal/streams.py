"""Print to terminals of any encoding, and to readers that have gone: never an error of its own."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["escape_unprintable", "print_json", "printing"]


def escape_unprintable() -> None:
    """Print what the encoding of the terminal lacks as a backslash escape, from now on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")


@contextmanager
def printing() -> Iterator[None]:
    """Go on where nothing can be printed: what was asked for is done, and its exit code counts."""
    try:
        yield
        sys.stdout.flush()
    except (OSError, SystemExit):  # a full disk, or a reader that has gone; rich exits then
        # Python writes out what is left at its end, and would complain again.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def print_json(text: str) -> None:
    """Print JSON; in ASCII where the terminal has no UTF-8: an escape of ours would break it."""
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    print(text if encoding == "utf8" else json.dumps(json.loads(text), indent=2))
