"""Find the fields that two runs have in common: by name, or by the image where names differ."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path

from rbc_engine.runs.finished.finished_run import FieldRow, FinishedRun
from rbc_engine.types.frames import FileStamp

__all__ = ["Pairing", "pair_fields"]

_CHUNK_BYTES = 1 << 20


@dataclass(kw_only=True)
class Pairing:
    """Hold the indices of the fields that both runs have done, in the order of A.

    only_a, only_b: slide, field and why, of fields done in one run only.
    renamed: pairs that have other names in B, found by their image.
    """

    pairs: list[tuple[int, int]] = field(default_factory=list)
    only_a: list[tuple[str, str, str]] = field(default_factory=list)
    only_b: list[tuple[str, str, str]] = field(default_factory=list)
    renamed: int = 0


def pair_fields(a: FinishedRun, b: FinishedRun) -> Pairing:
    """Pair the fields of two runs.

    Fields of one name are one; a repeated name is paired with the next field of that name. What is
    then left is paired by the content of the images, and where these are no longer what the runs
    read, by the name of the file with its size and time.
    """
    found = Pairing()
    left_a, left_b = dict(enumerate(a.rows)), dict(enumerate(b.rows))
    partner = _matched(left_a, left_b, lambda row: (row.slide, row.field), repeated=True)
    contents = _Contents(left_a, left_b)
    for same in (contents.sha256, contents.name_and_stamp):
        more = _matched(left_a, left_b, same, repeated=False)
        found.renamed += sum(a.rows[at].ok and b.rows[other].ok for at, other in more.items())
        partner |= more
    for index, row in enumerate(a.rows):
        other = partner.get(index)
        if other is None:
            if row.ok:
                found.only_a.append((row.slide, row.field, "not in B"))
        elif row.ok and b.rows[other].ok:
            found.pairs.append((index, other))
        elif row.ok:
            found.only_a.append((row.slide, row.field, "failed in B"))
        elif b.rows[other].ok:
            found.only_b.append((b.rows[other].slide, b.rows[other].field, "failed in A"))
    found.only_b += [(row.slide, row.field, "not in A") for row in left_b.values() if row.ok]
    return found


def _matched(
    left_a: dict[int, FieldRow],
    left_b: dict[int, FieldRow],
    key: Callable[[FieldRow], Hashable | None],
    *,
    repeated: bool,
) -> dict[int, int]:
    """Take the rows with the same key out of both, and return them: index in A to index in B.

    key: None for a row that is not to be matched. repeated: whether rows with one key are matched
    in their order; otherwise a key that a run has twice matches nothing.
    """
    places: tuple[dict[Hashable, list[int]], ...] = (defaultdict(list), defaultdict(list))
    for rows, place in zip((left_a, left_b), places, strict=True):
        for index, row in rows.items():
            name = key(row)
            if name is not None:
                place[name].append(index)
    found: dict[int, int] = {}
    for name, of_a in places[0].items():
        of_b = places[1].get(name, [])
        if repeated or len(of_a) == len(of_b) == 1:
            found.update(zip(of_a, of_b, strict=False))
    for index, other in found.items():
        del left_a[index], left_b[other]
    return found


class _Contents:
    """Tell images apart by their content, reading those whose size both runs have."""

    def __init__(self, left_a: dict[int, FieldRow], left_b: dict[int, FieldRow]) -> None:
        of_a, of_b = (
            {row.stamp.bytes for row in rows.values() if row.stamp} for rows in (left_a, left_b)
        )
        self._sizes = of_a & of_b
        self._read: dict[tuple[str, FileStamp], str | None] = {}

    def sha256(self, row: FieldRow) -> Hashable | None:
        """Return that of a row's image; None if it is not what the run read."""
        if row.stamp is None or row.stamp.bytes not in self._sizes:
            return None
        key = row.path, row.stamp
        if key not in self._read:
            self._read[key] = self._hash(row)
        return self._read[key]

    def name_and_stamp(self, row: FieldRow) -> Hashable | None:
        """Return what identifies the file of a row whose content is not known."""
        if row.stamp is None or self.sha256(row) is not None:
            return None
        return Path(row.path).name, row.stamp

    @staticmethod
    def _hash(row: FieldRow) -> str | None:
        path = Path(row.path)
        try:
            if not path.is_file() or FileStamp.of(path) != row.stamp:
                return None
            found = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    found.update(chunk)
        except (OSError, ValueError):
            return None
        return found.hexdigest()
