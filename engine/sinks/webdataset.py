"""webdataset/: patches and what was found in them, in tar files that training code reads as they come."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rbc_engine.pack import Pack
from rbc_engine.sinks.atomic import explain_os_errors
from rbc_engine.sinks.folder import AtomicFolder
from rbc_engine.sinks.patch_pixels import cut_patches
from rbc_engine.sinks.region_rows import FLAG_NAMES
from rbc_engine.sinks.text import encodable
from rbc_engine.types import FieldResult, Regions

__all__ = ["WebDatasetFolder"]

_SHARD_BYTES = 256 * 2**20
"""A shard that has reached this is closed, and the next one begun."""


class WebDatasetFolder:
    """webdataset/patches-000000.tar and so on. A region is a sample KEY.jpg, KEY.json; KEY is its number in the run.

    The JSON has the columns of regions.parquet: box, p in the pack's order of types, and the types that are held.
    """

    NAME = "webdataset"
    SUFFIX = ".tar"
    needs_frames = True

    def __init__(self, folder: Path, pack: Pack, *, shard_bytes: int = _SHARD_BYTES) -> None:
        self._pack = pack
        self._shard_bytes = shard_bytes
        self._folder = AtomicFolder(folder / self.NAME)
        self._template = _json_template(len(pack.types))
        self._members = _Members()
        self._samples = self._shards = 0
        self._shard: BinaryIO | None = None

    def write(self, result: FieldResult) -> None:
        if result.regions is None:
            return
        described = self._described(result, result.regions)
        for patch, about in zip(cut_patches(result, self._pack), described, strict=True):
            key = f"{self._samples:09d}"
            with explain_os_errors(self._folder.path):
                shard = self._open_shard()
                shard.write(self._members.member(f"{key}.jpg", patch))
                shard.write(self._members.member(f"{key}.json", about))
                if shard.tell() >= self._shard_bytes:
                    self._close_shard()
            self._samples += 1

    def complete(self) -> None:
        with explain_os_errors(self._folder.path):
            self._close_shard()
        self._folder.complete()

    def finish(self) -> None:
        self._folder.finish()

    def discard(self) -> None:
        if self._shard is not None:
            with suppress(
                OSError
            ):  # closing writes what is buffered, which may be what just failed
                self._shard.close()
        self._folder.discard()

    def _open_shard(self) -> BinaryIO:
        if self._shard is None:
            name = f"patches-{self._shards:06d}{self.SUFFIX}"
            self._shard = (self._folder.beside / name).open("xb", buffering=1 << 20)
            self._shards += 1
        return self._shard

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.write(bytes(2 * tarfile.BLOCKSIZE))
            self._shard.flush()
            os.fsync(self._shard.fileno())
            self._shard.close()
            self._shard = None

    def _described(self, result: FieldResult, regions: Regions) -> Iterator[bytes]:
        """For each region its JSON."""
        head = json.dumps({"slide": encodable(result.slide), "field": encodable(result.field)})[:-1]
        numbers = np.concatenate(
            [
                np.column_stack([regions.boxes, regions.scores]),
                regions.probabilities,
                np.column_stack([regions.abnormal_p, regions.cells_low, regions.cells_high]),
            ],
            axis=1,
        )
        rows = zip(numbers.tolist(), regions.has, regions.abnormal, regions.flags, strict=True)
        for index, (row, has, abnormal, bits) in enumerate(rows):
            held = json.dumps([self._pack.types[held] for held in np.flatnonzero(has)])
            about = self._template % (*row, held, "true" if abnormal else "false", _FLAGS[bits])
            yield f'{head}, "region": {index}, {about}'.encode()


_FLAGS = [json.dumps(names.split(";") if names else []) for names in FLAG_NAMES]


def _json_template(types: int) -> str:
    """What a sample says of its region, as JSON, to be filled by %."""
    return (
        '"box": [%.2f, %.2f, %.2f, %.2f], "score": %.7g, '
        f'"p": [{", ".join(["%.7g"] * types)}], '
        '"abnormal_p": %.7g, "cells_low": %d, "cells_high": %d, "types": %s, "abnormal": %s, "flags": %s}'
    )


class _Members:
    """Writes the headers of files in a tar file that differ in name and size alone: tarfile takes as long for one as
    the patch does."""

    _SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)

    def __init__(self) -> None:
        header = bytearray(tarfile.TarInfo("name").tobuf(tarfile.USTAR_FORMAT))
        header[:100], header[self._SIZE] = bytes(100), bytes(12)
        header[self._CHECKSUM] = b" " * 8  # as the rule for the sum has it
        self._header, self._sum = bytes(header), sum(header)

    def member(self, name: str, data: bytes) -> bytes:
        """A file: its header, its bytes, and what fills the block. name: up to 99 characters of ASCII."""
        header = bytearray(self._header)
        named, size = name.encode("ascii"), b"%011o" % len(data)
        header[: len(named)] = named
        header[124 : 124 + len(size)] = size
        header[self._CHECKSUM] = b"%06o\0 " % (self._sum + sum(named) + sum(size))
        return bytes(header) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
