"""webdataset/: patches and their results, in tar files that training code reads as a stream."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import explain_os_errors
from rbc_engine.sinks.files.atomic_folder import AtomicFolder
from rbc_engine.sinks.files.work_behind import WorkBehind
from rbc_engine.sinks.formats.patch_pixels import cut_patches
from rbc_engine.sinks.tables.regions_parquet import FLAG_NAMES
from rbc_engine.text import encodable
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = ["WebDatasetFolder"]

_SHARD_BYTES = 256 * 2**20
"""A shard that has reached this is closed, and the next one begun."""


class WebDatasetFolder:
    """Write webdataset/patches-000000.tar and so on.

    A red region is a sample KEY.jpg, KEY.json; KEY is its number among those of the run.

    The JSON has the columns of regions.parquet: box, p in the pack's order of types, and the types
    that are held.
    """

    NAME = "webdataset"
    SUFFIX = ".tar"
    needs_frames = True

    def __init__(self, folder: Path, pack: Pack, *, shard_bytes: int = _SHARD_BYTES) -> None:
        self._pack = pack
        self._shard_bytes = shard_bytes
        self._folder = AtomicFolder(folder / self.NAME)
        self._template = _json_template(len(pack.types))
        # Most regions hold one of a few sets of types.
        self._held = lru_cache(maxsize=1024)(partial(_held_json, pack.types))
        self._members = _Members()
        self._samples = self._shards = 0
        self._shard: BinaryIO | None = None
        self._written = 0
        self._work: WorkBehind[list[bytes]] = WorkBehind(self._append)

    def write(self, result: FieldResult) -> None:
        if result.regions is None:
            return
        patches = cut_patches(result, self._pack)
        self._work.do(self._make_samples, result, result.regions, patches, self._samples)
        self._samples += int(result.regions.red.sum())

    def complete(self) -> None:
        self._work.finish()
        with explain_os_errors(self._folder.path):
            self._close_shard()
        self._folder.complete()

    def files(self) -> Iterator[str]:
        return self._folder.files()

    def finish(self) -> None:
        self._folder.finish()

    def discard(self) -> None:
        self._work.close()
        if self._shard is not None:
            with suppress(
                OSError
            ):  # closing writes what is buffered, which may be what just failed
                self._shard.close()
        self._folder.discard()

    def _append(self, samples: list[bytes]) -> None:
        """Append to the open shard, or the next."""
        with explain_os_errors(self._folder.path):
            for sample in samples:
                shard = self._open_shard()
                self._written += shard.write(sample)
                if self._written >= self._shard_bytes:
                    self._close_shard()

    def _open_shard(self) -> BinaryIO:
        if self._shard is None:
            name = f"patches-{self._shards:06d}{self.SUFFIX}"
            self._shard = (self._folder.beside / name).open("xb", buffering=1 << 20)
            self._shards += 1
            self._written = 0
        return self._shard

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.write(bytes(2 * tarfile.BLOCKSIZE))
            self._shard.flush()
            os.fsync(self._shard.fileno())
            self._shard.close()
            self._shard = None

    def _make_samples(
        self, result: FieldResult, regions: Regions, patches: Iterator[bytes], first: int
    ) -> list[bytes]:
        """Make the two files of each red region, as they stand in a shard.

        first: number of the first in the run.
        """
        member = self._members.member
        described = self._described(result, regions)
        return [
            member(f"{key:09d}.jpg", patch) + member(f"{key:09d}.json", about)
            for key, (patch, about) in enumerate(zip(patches, described, strict=True), first)
        ]

    def _described(self, result: FieldResult, regions: Regions) -> Iterator[bytes]:
        """Describe each red region as JSON."""
        numbers_in_field = np.flatnonzero(regions.red).tolist()
        regions = regions.take(regions.red)
        head = json.dumps({"slide": encodable(result.slide), "field": encodable(result.field)})[:-1]
        numbers = np.concatenate(
            [
                np.column_stack([regions.boxes, regions.scores]),
                regions.probabilities,
                np.column_stack([regions.abnormal_p, regions.cells_low, regions.cells_high]),
            ],
            axis=1,
        )
        held = (self._held(row.tobytes()) for row in regions.has)
        abnormal = ("true" if value else "false" for value in regions.abnormal.tolist())
        flags = (_FLAGS[bits] for bits in regions.flags.tolist())
        rows = zip(numbers.tolist(), held, abnormal, flags, strict=True)
        for index, (row, *texts) in zip(numbers_in_field, rows, strict=True):
            yield f'{head}, "region": {index}, {self._template % (*row, *texts)}'.encode()


_FLAGS = [json.dumps(names.split(";") if names else []) for names in FLAG_NAMES]


def _json_template(types: int) -> str:
    """Return the JSON of a sample with % fields."""
    return (
        '"box": [%.2f, %.2f, %.2f, %.2f], "score": %.7g, '
        f'"p": [{", ".join(["%.7g"] * types)}], '
        '"abnormal_p": %.7g, "cells_low": %d, "cells_high": %d, "types": %s, '
        '"abnormal": %s, "flags": %s}'
    )


def _held_json(types: Sequence[str], has: bytes) -> str:
    """Return the types that a region holds, as JSON. has: a byte per type, as numpy stores bool."""
    return json.dumps([name for name, held in zip(types, has, strict=True) if held])


class _Members:
    """Write headers of a tar file that differ only in name and size.

    tarfile takes as long for one as the patch itself does.
    """

    _SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)

    def __init__(self) -> None:
        header = bytearray(tarfile.TarInfo("name").tobuf(tarfile.USTAR_FORMAT))
        header[:100], header[self._SIZE] = bytes(100), bytes(12)
        header[self._CHECKSUM] = b" " * 8  # as the rule for the sum has it
        self._header, self._sum = bytes(header), sum(header)

    def member(self, name: str, data: bytes) -> bytes:
        """Return a file of the tar: header, bytes and padding.

        name: up to 99 characters of ASCII.
        """
        header = bytearray(self._header)
        named, size = name.encode("ascii"), b"%011o" % len(data)
        header[: len(named)] = named
        header[124 : 124 + len(size)] = size
        header[self._CHECKSUM] = b"%06o\0 " % (self._sum + sum(named) + sum(size))
        return bytes(header) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
