"""A dataset is checked before it is used, and all that is wrong with it is told at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.sources.images.decode import read_image
from rbc_engine.text import printable
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.types.arrays import UInt8

__all__ = ["Copies", "Faults", "ListedImage", "checked_dataset", "describe_copies", "read_fields"]

_MOST_LINES = 50
_LINE_CHARACTERS = 400


class Faults:
    """What is wrong with a dataset, gathered while it is read."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, fault: str) -> None:
        """fault: the file by its path in the dataset, the rule, the value, the remedy; becomes one line."""
        self._lines.append(f"{printable(fault):.{_LINE_CHARACTERS}}")

    def add_invalid(self, file: str, error: ValidationError) -> None:
        """A fault for each value of a file that its model refuses."""
        for detail in error.errors(include_url=False):
            place = ".".join(map(str, detail["loc"]))
            got = "" if detail["type"] == "missing" else f" (got {detail['input']!r:.80})"
            self.add(f"{file}: {place or 'the whole'}: {detail['msg']}{got}")

    def extend(self, other: Faults) -> None:
        self._lines.extend(other._lines)

    def error(self, folder: Path, *, option: str = "--data") -> UsageError:
        """What to raise: a line for each of the first faults, and the count of all.

        option: which names the folder.
        """
        count = len(self._lines)
        lines = self._lines[:_MOST_LINES]
        if count > _MOST_LINES:
            lines.append(f"and {count - _MOST_LINES} more")
        faults = "1 fault" if count == 1 else f"{count} faults"
        return UsageError("\n  ".join([f"{option} {folder} has {faults}:", *lines]))

    def raise_if_any(self, folder: Path) -> None:
        if self._lines:
            raise self.error(folder)


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """An image that a dataset names, before it is read.

    name: what the dataset's own files call it.
    """

    path: Path
    name: str


Image = TypeVar("Image", bound=ListedImage)
Copies = Mapping[tuple[str, str], Sequence[str]]
"""For each two smear groups, the images that both hold: 'a.jpg = b.jpg'."""

MakeField = Callable[[Image, str, "UInt8 | None", Faults], "LabelledField | None"]
"""From an image, its smear group, its pixels (None if it cannot be read), and where to put faults."""


def read_fields(
    images: Sequence[Image],
    make_field: MakeField[Image],
    *,
    folder: Path,
    groups: Mapping[str, str],
    threads: int | None,
    faults: Faults,
) -> tuple[tuple[LabelledField, ...], Copies]:
    """Decodes every image and makes its field; faults come in the order of the images.

    folder: of the dataset.
    groups: smear group by image name.
    threads: None for the cores that this process may use.

    Returns the fields, and what there is of the same pixels in two groups.
    """

    def read(image: Image) -> tuple[LabelledField | None, str, Faults]:
        found = Faults()
        pixels, digest = None, ""
        try:
            pixels = read_image(image.path, name=os.path.relpath(image.path, folder))
            digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        except ImageError as error:
            found.add(str(error))
        return make_field(image, groups.get(image.name, ""), pixels, found), digest, found

    workers = len(os.sched_getaffinity(0)) if threads is None else threads
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(read, images))
    for _, _, found in results:
        faults.extend(found)
    digests = [digest for _, digest, _ in results]
    fields = tuple(field for field, _, _ in results if field is not None)
    return fields, _find_copies([image.name for image in images], digests, groups)


def checked_dataset(
    images: Sequence[Image],
    make_field: MakeField[Image],
    *,
    folder: Path,
    name: str,
    types: tuple[str, ...],
    abnormal: tuple[str, ...],
    groups: Mapping[str, str],
    notes: tuple[str, ...] = (),
    threads: int | None,
    faults: Faults,
) -> Dataset:
    """The dataset of all images, once none of them has a fault. See read_fields.

    faults: those found so far. Raises UsageError that lists every fault.
    """
    fields, copies = read_fields(
        images, make_field, folder=folder, groups=groups, threads=threads, faults=faults
    )
    for line in describe_copies(copies):
        faults.add(line)
    faults.raise_if_any(folder)
    return Dataset(name=name, types=types, abnormal=abnormal, fields=fields, notes=notes)


def describe_copies(copies: Copies) -> list[str]:
    """A line for each two groups."""
    return [
        f"smear groups {group} and {other} hold the same image {len(same)} times ({', '.join(same[:3])}"
        f"{', ...' if len(same) > 3 else ''}), so that a split could test on what it trained on; "
        f"remove the copies, or give both groups one name in smears.csv"
        for (group, other), same in copies.items()
    ]


def _find_copies(names: Sequence[str], digests: Sequence[str], groups: Mapping[str, str]) -> Copies:
    first: dict[str, str] = {}
    copies: dict[tuple[str, str], list[str]] = {}
    for name, digest in zip(names, digests, strict=True):
        original = first.setdefault(digest, name)
        group, other = groups.get(original, ""), groups.get(name, "")
        if digest and group != other:
            copies.setdefault((group, other), []).append(f"{original} = {name}")
    return copies
