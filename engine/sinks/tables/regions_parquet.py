"""regions.parquet, one row a region: what its rows are, and the file.

Other tables and formats share the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.text import encodable
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.kinds import KIND_LABELS
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldResult

__all__ = [
    "FLAG_NAMES",
    "ROWS_AT_ONCE",
    "FieldRegions",
    "RegionRows",
    "RegionsParquet",
    "kind_column",
    "pack_metadata",
    "region_schema",
    "region_table",
]

ROWS_AT_ONCE = 50_000
"""Regions held back before they are written: a few megabytes, whatever the length of the run."""

FLAG_NAMES = tuple(";".join(RegionFlag(bits).names()) for bits in range(256))
"""How the tables write each value of Regions.flags."""


@dataclass(eq=False, kw_only=True)
class FieldRegions:
    """Hold the regions of some fields, at least one each."""

    slides: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    regions: list[Regions] = field(default_factory=list)

    @property
    def counts(self) -> list[int]:
        """Return the number of regions of each field."""
        return [len(regions) for regions in self.regions]

    def joined(self, name: str) -> Any:
        """Return one of the arrays of Regions, joined over all fields."""
        return np.concatenate([getattr(regions, name) for regions in self.regions])


class RegionRows:
    """Collect fields until there are rows enough to write them at once.

    Its length is the number of rows.
    """

    def __init__(self) -> None:
        self._held = FieldRegions()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, result: FieldResult) -> None:
        if result.regions is not None and len(result.regions):
            self._held.slides.append(result.slide)
            self._held.fields.append(result.field)
            self._held.regions.append(result.regions)
            self._count += len(result.regions)

    def take(self) -> FieldRegions:
        """Return the fields collected since the last call, and forget them."""
        held, self._held, self._count = self._held, FieldRegions(), 0
        return held


def region_schema(types: Sequence[str]) -> Any:
    """Return columns and types of the rows of regions."""
    return pa.schema(
        [
            ("slide", pa.string()),
            ("field", pa.string()),
            ("region", pa.int32()),
            *((name, pa.float32()) for name in ("x0", "y0", "x1", "y1", "score")),
            ("kind", pa.string()),
            *((f"p_{name}", pa.float32()) for name in types),
            *((f"has_{name}", pa.bool_()) for name in types),
            ("abnormal_p", pa.float32()),
            ("abnormal", pa.bool_()),
            ("cells_low", pa.int32()),
            ("cells_high", pa.int32()),
            ("flags", pa.string()),
        ]
    )


def kind_column(kinds: UInt8) -> Any:
    """Return a column of the labels of kinds uint8 [N]."""
    return pa.array(KIND_LABELS, pa.string()).take(pa.array(kinds))


def pack_metadata(pack: Pack) -> dict[str, str]:
    """Return metadata of a Parquet file that name the pack."""
    described = {"name": pack.name, "version": pack.manifest.version, "sha256": pack.sha256}
    return {f"rbc_engine.pack.{key}": value for key, value in described.items()}


def region_table(
    rows: FieldRegions, types: Sequence[str], *, text: Callable[[str], str] = encodable
) -> Any:
    """Return an Arrow table of region_schema. text: makes names from outside fit for the file."""
    field_of_row = pa.array(np.repeat(np.arange(len(rows.counts)), rows.counts))
    columns = {
        "slide": pa.array(map(text, rows.slides), pa.string()).take(field_of_row),
        "field": pa.array(map(text, rows.fields), pa.string()).take(field_of_row),
        "region": np.concatenate([np.arange(count, dtype=np.int32) for count in rows.counts]),
        **dict(zip(("x0", "y0", "x1", "y1"), rows.joined("boxes").T, strict=True)),
        "score": rows.joined("scores"),
        "kind": kind_column(rows.joined("kinds")),
        **dict(zip((f"p_{name}" for name in types), rows.joined("probabilities").T, strict=True)),
        **dict(zip((f"has_{name}" for name in types), rows.joined("has").T, strict=True)),
        "abnormal_p": rows.joined("abnormal_p"),
        "abnormal": rows.joined("abnormal"),
        "cells_low": rows.joined("cells_low"),
        "cells_high": rows.joined("cells_high"),
        "flags": pa.array(FLAG_NAMES, pa.string()).take(pa.array(rows.joined("flags"))),
    }
    return pa.table(columns, schema=region_schema(types))


class RegionsParquet:
    """Write regions.parquet.

    Columns: slide, field, region, x0, y0, x1, y1, score, kind, p_<type>…, has_<type>…, abnormal_p,
    abnormal, cells_low, cells_high, flags.

    region counts from 0 within its field. Boxes are px of the full-resolution image, origin top
    left. flags are names joined by ';'. The file's metadata name the pack, under
    rbc_engine.pack.name, .version and .sha256.
    """

    NAME = "regions.parquet"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._types = pack.types
        self._rows = RegionRows()
        self._file = AtomicFile(folder / self.NAME)
        self._writer = pq.ParquetWriter(
            self._file.file,
            region_schema(pack.types).with_metadata(pack_metadata(pack)),
            compression="zstd",
            use_dictionary=["slide", "field", "kind", "flags"],
        )

    def write(self, result: FieldResult) -> None:
        self._rows.add(result)
        if len(self._rows) >= ROWS_AT_ONCE:
            self._write_row_group()

    def complete(self) -> None:
        if self._writer.is_open:
            self._write_row_group()
            with explain_os_errors(self._file.path):
                self._writer.close()
        self._file.complete()

    def sha256(self) -> str:
        """Return the SHA-256 of the file, once it is complete."""
        return self._file.sha256()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        with suppress(OSError, ValueError):  # writes the footer, to a disk that may be full
            self._writer.close()
        self._file.discard()

    def _write_row_group(self) -> None:
        if len(self._rows):
            table = region_table(self._rows.take(), self._types)
            with explain_os_errors(self._file.path):
                self._writer.write_table(table, row_group_size=ROWS_AT_ONCE)
