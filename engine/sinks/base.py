"""What every output of a run has in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.results import FieldResult

__all__ = ["DescribedSink", "FolderSink", "Sink"]


class Sink(Protocol):
    """Takes the results of a run in order, from one thread, and becomes visible as a whole or not at all.

    Call order: write, any number of times; complete; finish. discard may come at any time, also more than once,
    and does nothing after finish. write, complete and finish raise OutputError if the disk refuses.
    """

    needs_frames: bool
    """Whether results must carry their frame."""

    def write(self, result: FieldResult) -> None: ...

    def complete(self) -> None:
        """Brings everything to the disk, still under a temporary name: after it no space is needed any more."""
        ...

    def finish(self) -> None:
        """Completes if that has not been done, then renames into place."""
        ...

    def discard(self) -> None:
        """Removes what is half-written."""
        ...


@runtime_checkable
class DescribedSink(Sink, Protocol):
    """A sink that shows what run.json says."""

    def describe(self, run: RunRecord) -> None:
        """Takes what run.json will hold, before complete."""
        ...


@runtime_checkable
class FolderSink(Sink, Protocol):
    """A sink that makes a folder of files."""

    def files(self) -> Iterator[str]:
        """Their paths relative to --out, between complete and finish."""
        ...
