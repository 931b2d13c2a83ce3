"""Find pictures that are the same file twice (links), or equal to the byte (copies)."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rbc_engine.text import printable
from rbc_engine.types.frames import FieldRef

__all__ = ["copy_notes", "same_files"]

_PROBE_BYTES = 4096
_BLOCK_BYTES = 1 << 20
_MOST_NAMED = 5

FileId = tuple[int, int]


def same_files(paths: Sequence[Path]) -> dict[Path, Path]:
    """Return which paths are further names of a file that another of them names: links, soft and
    hard.

    paths: of one folder, in the order in which one is preferred; a path that is no link is
    preferred to a link. Returns the further name → the name that is kept.
    """
    named: dict[FileId, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            status = path.stat()
        except (OSError, ValueError):  # comes up when it is read
            continue
        # One name alone, and no link of another: most files.
        named[(status.st_dev, status.st_ino)].append(path)
    further: dict[Path, Path] = {}
    for names in named.values():
        if len(names) > 1:
            kept = min(names, key=lambda path: (path.is_symlink(), names.index(path)))
            further |= {path: kept for path in names if path != kept}
    return further


def copy_notes(refs: Iterable[FieldRef]) -> list[str]:
    """Name the pictures that are equal to the byte: every one of them is run, and counts.

    Only files of one size are compared: by a few of their bytes, then by all.
    """
    sized: dict[int, list[FieldRef]] = defaultdict(list)
    for ref in refs:
        try:
            sized[ref.path.stat().st_size].append(ref)
        except (OSError, ValueError):
            continue
    groups = []
    for size, alike in sized.items():
        if size and len(alike) > 1:
            for probed in _split(alike, size, whole=False):
                groups += _split(probed, size, whole=size > 2 * _PROBE_BYTES)
    if not groups:
        return []
    shown = [
        " = ".join(
            printable(ref.field if ref.field.startswith(ref.slide) else f"{ref.slide}/{ref.field}")
            for ref in group[:_MOST_NAMED]
        )
        + (f" and {len(group) - _MOST_NAMED} more" if len(group) > _MOST_NAMED else "")
        for group in groups
    ]
    more = len(shown) - _MOST_NAMED
    listed = "; ".join(shown[:_MOST_NAMED]) + (f"; and {more} more groups" if more > 0 else "")
    extra = sum(len(group) - 1 for group in groups)
    return [
        f"{extra} pictures are copies, equal to the byte, and their cells count more than once: "
        f"{listed}; remove the copies and run again"
    ]


def _split(refs: Sequence[FieldRef], size: int, *, whole: bool) -> list[list[FieldRef]]:
    """Return the groups, of more than one, whose files agree."""
    same: dict[bytes, list[FieldRef]] = defaultdict(list)
    for ref in refs:
        try:
            same[_digest(ref.path, size, whole=whole)].append(ref)
        except OSError:
            continue
    return [group for group in same.values() if len(group) > 1]


def _digest(path: Path, size: int, *, whole: bool) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    # Without waiting, should it have become a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if whole:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        else:
            digest.update(os.pread(file.fileno(), _PROBE_BYTES, 0))
            digest.update(os.pread(file.fileno(), _PROBE_BYTES, max(size - _PROBE_BYTES, 0)))
    return digest.digest()
