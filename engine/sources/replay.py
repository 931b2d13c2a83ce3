"""Play image files as if a camera gave them: at a steady rate, whether or not anyone keeps up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rbc_engine.errors import SessionClosedError
from rbc_engine.sources.base import Entry
from rbc_engine.sources.images.files import FileSource
from rbc_engine.types.frames import Decoded

if TYPE_CHECKING:
    from rbc_engine.session.session import Session

__all__ = ["feed_replay"]

_AHEAD = 4


def feed_replay(
    entries: Sequence[Entry],
    session: Session,
    *,
    fps: float,
    seconds: float | None = None,
    frames: int | None = None,
    stop: threading.Event | None = None,
    loop: bool = False,
) -> int:
    """Submit the images of entries, in this thread, the k-th at k / fps seconds, or as soon as it
    is decoded.

    A file that cannot be read fails. seconds, frames: limits, None for none. stop: ends it when
    set; so does closing the session. loop: starts again after the last image; from the second time
    on, fields are named NAME~2, ...

    Returns how many were submitted.
    """
    stop = stop or threading.Event()
    started_s = time.perf_counter()
    submitted = 0
    for decoded in _rounds(entries, loop=loop):
        if frames is not None and submitted >= frames:
            break
        due_s = started_s + submitted / fps
        if seconds is not None and due_s - started_s >= seconds:
            break
        if stop.wait(max(0.0, due_s - time.perf_counter())):
            break
        ref = decoded.ref
        try:
            if decoded.frame is None:
                why = decoded.error or "no frame"
                session.note_failed(why, field=ref.field, slide=ref.slide, path=ref.path)
            else:
                session.submit(
                    decoded.frame.pixels,
                    field=ref.field,
                    slide=ref.slide,
                    path=ref.path,
                    copy=False,
                )
        except SessionClosedError:
            break
        submitted += 1
    return submitted


def _rounds(entries: Sequence[Entry], *, loop: bool) -> Iterator[Decoded]:
    number = 1
    while True:
        named = entries if number == 1 else [_renamed(entry, number) for entry in entries]
        with FileSource(named, workers=1, ahead=_AHEAD) as source:
            yield from source
        if not loop:
            return
        number += 1


def _renamed(entry: Entry, number: int) -> Entry:
    if isinstance(entry, Decoded):
        return replace(entry, ref=replace(entry.ref, field=f"{entry.ref.field}~{number}"))
    return replace(entry, field=f"{entry.field}~{number}")
