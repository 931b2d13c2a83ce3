"""Define what every output of a run has in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.results import FieldResult

__all__ = ["DescribedSink", "FolderSink", "Sink"]


class Sink(Protocol):
    """Take the results of a run in order, from one thread, and appear whole or not at all.

    Call order: write, any number of times; complete; finish. discard may come at any time, also
    more than once, and does nothing after finish. write, complete and finish raise OutputError if
    writing fails.
    """

    needs_frames: bool
    """Whether results must carry their frame."""

    def write(self, result: FieldResult) -> None: ...

    def complete(self) -> None:
        """Write everything to disk, still under a temporary name: after it no more space is
        needed.
        """
        ...

    def finish(self) -> None:
        """Complete if that has not been done, then rename into place."""
        ...

    def discard(self) -> None:
        """Remove what is half-written."""
        ...


@runtime_checkable
class DescribedSink(Sink, Protocol):
    """Take results and show what run.json says."""

    def describe(self, run: RunRecord) -> None:
        """Take what run.json will hold, before complete."""
        ...


@runtime_checkable
class FolderSink(Sink, Protocol):
    """Take results and make a folder of files."""

    def files(self) -> Iterator[str]:
        """Return the paths of the files relative to --out, between complete and finish."""
        ...
