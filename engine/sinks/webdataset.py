"""webdataset/: patches and what was found in them, in tar files that training code reads as they come."""

from __future__ import annotations

import json
import os
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from rbc_engine.pack import Pack
from rbc_engine.sinks.atomic import explain_os_errors
from rbc_engine.sinks.folder import AtomicFolder
from rbc_engine.sinks.patch_pixels import cut_patches
from rbc_engine.sinks.region_rows import FLAG_NAMES
from rbc_engine.sinks.text import encodable
from rbc_engine.types import FieldResult

__all__ = ["WebDatasetFolder"]

_SHARD_BYTES = 256 * 2**20
"""A shard that has reached this is closed, and the next one begun."""


class WebDatasetFolder:
    """webdataset/patches-000000.tar and so on. A region is a sample KEY.jpg, KEY.json; KEY is its number in the run.

    The JSON has the columns of regions.parquet, types as lists in the pack's order.
    """

    NAME = "webdataset"
    SUFFIX = ".tar"
    needs_frames = True

    def __init__(self, folder: Path, pack: Pack, *, shard_bytes: int = _SHARD_BYTES) -> None:
        self._pack = pack
        self._shard_bytes = shard_bytes
        self._folder = AtomicFolder(folder / self.NAME)
        self._samples = self._shards = 0
        self._shard: BinaryIO | None = None

    def write(self, result: FieldResult) -> None:
        if result.regions is None:
            return
        described = self._described(result)
        for patch, about in zip(cut_patches(result, self._pack), described, strict=True):
            key = f"{self._samples:09d}"
            with explain_os_errors(self._folder.path):
                shard = self._open_shard()
                shard.write(_member(f"{key}.jpg", patch) + _member(f"{key}.json", about))
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

    def _described(self, result: FieldResult) -> list[bytes]:
        """For each region its JSON."""
        regions = result.regions
        if regions is None:
            return []
        head = json.dumps({"slide": encodable(result.slide), "field": encodable(result.field)})[:-1]
        rows: list[dict[str, Any]] = [
            {
                "region": index,
                "box": box,
                "score": score,
                "types": [name for name, held in zip(self._pack.types, has, strict=True) if held],
                "p": p,
                "abnormal_p": abnormal_p,
                "abnormal": abnormal,
                "cells": cells,
                "flags": FLAG_NAMES[bits].split(";") if bits else [],
            }
            for index, (box, score, has, p, abnormal_p, abnormal, *cells, bits) in enumerate(
                zip(
                    regions.boxes.round(2).tolist(),
                    regions.scores.tolist(),
                    regions.has.tolist(),
                    regions.probabilities.tolist(),
                    regions.abnormal_p.tolist(),
                    regions.abnormal.tolist(),
                    regions.cells_low.tolist(),
                    regions.cells_high.tolist(),
                    regions.flags.tolist(),
                    strict=True,
                )
            )
        ]
        return [f"{head}, {json.dumps(row)[1:]}".encode() for row in rows]


def _member(name: str, data: bytes) -> bytes:
    """A file within a tar file: its header, its bytes, and what fills the block."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    filling = bytes(-len(data) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + filling
