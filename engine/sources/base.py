"""What every source keeps to, and speaks of: the entries of a run, and their order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, TypeVar

from rbc_engine.types.frames import Decoded, FieldRef

__all__ = ["Entry", "Source", "entry_ref", "field_order"]

Yielded = TypeVar("Yielded", covariant=True)


class Source(Protocol[Yielded]):
    """Read what a run needs, ahead of the networks, in the order of its entries.

    Iterate it once, from one thread, in a `with` block: leaving that, by an error or not, stops its
    threads. What cannot be used is yielded with its error, and stops nothing.
    """

    @property
    def notes(self) -> Sequence[str]:
        """Say what run.json has to say of the reading, when it is over."""
        ...

    def __iter__(self) -> Iterator[Yielded]: ...

    def close(self) -> None:
        """Stop the threads, and wait for them. May be called again."""
        ...

    def __enter__(self) -> Source[Yielded]: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


Entry = FieldRef | Decoded

_DIGITS = re.compile("([0-9]+)")


def entry_ref(entry: Entry) -> FieldRef:
    return entry.ref if isinstance(entry, Decoded) else entry


def field_order(ref: FieldRef) -> tuple[object, ...]:
    """Return a sort key by slide, then field, in natural order: the order of a run's tables."""
    return (_natural(ref.slide), ref.slide, _natural(ref.field), ref.field)


def _natural(path: str) -> list[list[str | int]]:
    """Return a sort key that compares numbers by value: text and number by turns."""
    return [
        [int(run) if i % 2 else run for i, run in enumerate(_DIGITS.split(part.casefold()))]
        for part in path.split("/")
    ]
