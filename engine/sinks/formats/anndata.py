"""regions.h5ad: the regions as AnnData, for scanpy, squidpy and their kin.

Written as AnnData's own description of its form says ("On-disk format", encodings of AnnData 0.8
and later), in pieces, so that memory does not grow with the run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.sinks.origin import origin
from rbc_engine.sinks.tables.regions_parquet import (
    FLAG_NAMES,
    ROWS_AT_ONCE,
    FieldRegions,
    RegionRows,
)
from rbc_engine.text import encodable
from rbc_engine.types.kinds import KIND_LABELS
from rbc_engine.types.results import FieldResult

__all__ = ["RegionsH5ad"]

_CHUNK_ROWS = 8192
_TEXT = h5py.string_dtype()

_COLUMNS = {
    # Of obs: those of the rows of regions that stand in arrays of Regions.
    "score": ("scores", np.float32),
    "abnormal_p": ("abnormal_p", np.float32),
    "abnormal": ("abnormal", np.bool_),
    "cells_low": ("cells_low", np.int32),
    "cells_high": ("cells_high", np.int32),
}
_BOX = ("x0", "y0", "x1", "y1")


class RegionsH5ad:
    """Write regions.h5ad, a file of AnnData.

    X: probabilities float32 [R, T]. layers['has']: bool [R, T]. obsm['spatial']: centres, px.

    obs: slide, field, kind and flags as categories, region, box, score, abnormal_p, abnormal,
        cells_low, cells_high.
    var: the types, and which are abnormal. uns['rbc_engine']: what made the file.
    """

    NAME = "regions.h5ad"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._rows = RegionRows()
        self._count = 0
        self._categories = {name: _Categories() for name in ("slide", "field", "kind", "flags")}
        self._file = AtomicFile(folder / self.NAME)
        self._disk = _Shielded(self._file.beside)
        self._h5 = h5py.File(self._disk, "w", libver=("earliest", "v110"))
        try:
            with self._written():
                self._begin(pack)
        except BaseException:
            self.discard()
            raise

    def write(self, result: FieldResult) -> None:
        self._rows.add(result)
        if len(self._rows) >= ROWS_AT_ONCE:
            self._write_rows()

    def complete(self) -> None:
        if not self._disk.closed:
            self._write_rows()
            with self._written():
                for name, categories in self._categories.items():
                    _put_text(self._h5["obs"][name], "categories", categories.names)
                self._h5.close()
            self._disk.close()
        self._file.complete()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        self._disk.error = self._disk.error or OSError("discarded")
        with suppress(OSError, RuntimeError, ValueError):  # it does not find what was not written
            self._h5.close()
        self._disk.close()
        self._file.discard()

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Raise OutputError at the end if the disk refused a write, whatever HDF5 made of it."""
        try:
            yield
        finally:
            if self._disk.error is not None:
                with explain_os_errors(self._file.path):
                    raise self._disk.error

    def _begin(self, pack: Pack) -> None:
        """Create everything but the rows, which grow, and the categories, known at the end."""
        h5, types = self._h5, len(pack.types)
        _encode(h5, "anndata", "0.1.0")
        _grow(h5, "X", np.float32, (types,))
        for name in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
            _encode(h5.create_group(name), "dict", "0.1.0")
        _grow(h5["layers"], "has", np.bool_, (types,))
        _grow(h5["obsm"], "spatial", np.float32, (2,))

        obs = h5.create_group("obs")
        columns = ("slide", "field", "region", *_BOX, "score", "kind", *_COLUMNS, "flags")
        columns = tuple(dict.fromkeys(columns))
        _encode(obs, "dataframe", "0.2.0", columns=columns)
        _grow(obs, "_index", _TEXT, encoding="string-array")
        _grow(obs, "region", np.int32)
        for name in _BOX:
            _grow(obs, name, np.float32)
        for name, (_, dtype) in _COLUMNS.items():
            _grow(obs, name, dtype)
        for name in self._categories:
            group = obs.create_group(name)
            _encode(group, "categorical", "0.2.0")
            group.attrs["ordered"] = False
            _grow(group, "codes", np.int32)

        var = h5.create_group("var")
        _encode(var, "dataframe", "0.2.0", columns=("abnormal",))
        _put_text(var, "_index", pack.types)
        _encode(
            var.create_dataset("abnormal", data=np.isin(pack.types, pack.manifest.abnormal)),
            "array",
            "0.2.0",
        )
        _put_dict(h5["uns"], "rbc_engine", origin(pack))

    def _write_rows(self) -> None:
        if len(self._rows):
            with self._written():
                self._append(self._rows.take())

    def _append(self, rows: FieldRegions) -> None:
        boxes = rows.joined("boxes")
        count = len(boxes)
        h5, obs = self._h5, self._h5["obs"]
        _append(h5["X"], rows.joined("probabilities"))
        _append(h5["layers/has"], rows.joined("has"))
        _append(h5["obsm/spatial"], (boxes[:, :2] + boxes[:, 2:]) / 2)
        _append(obs["_index"], [str(self._count + index) for index in range(count)])
        _append(obs["region"], np.concatenate([np.arange(length) for length in rows.counts]))
        for name, column in zip(_BOX, boxes.T, strict=True):
            _append(obs[name], column)
        for name, (of_regions, _) in _COLUMNS.items():
            _append(obs[name], rows.joined(of_regions))
        codes = self._categories
        for name, texts in (("slide", rows.slides), ("field", rows.fields)):
            code = [codes[name].code(encodable(text)) for text in texts]
            _append(obs[name]["codes"], np.repeat(code, rows.counts))
        for name, of_regions, names in (
            ("kind", "kinds", KIND_LABELS),
            ("flags", "flags", FLAG_NAMES),
        ):
            values, index = np.unique(rows.joined(of_regions), return_inverse=True)
            code_of_value = np.array([codes[name].code(names[value]) for value in values])
            _append(obs[name]["codes"], code_of_value[index])
        self._count += count


class _Categories:
    """Number names in the order in which they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    @property
    def names(self) -> list[str]:
        return list(self._codes)


class _Shielded(io.FileIO):
    """Shield HDF5 from write errors, which would end the process: no write seems to fail.

    error: of the first write that failed; nothing is written after it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        length = len(left)
        with self._noted():
            while left and self.error is None:
                left = left[super().write(left) :]
        return length

    def truncate(self, size: int | None = None) -> int:
        with self._noted():
            if self.error is None:
                return super().truncate(size)
        return size or 0

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error


def _encode(item: Any, kind: str, version: str, *, columns: Sequence[str] | None = None) -> None:
    """Put AnnData's marks on a group or dataset. columns: of a dataframe, without its index."""
    item.attrs["encoding-type"] = kind
    item.attrs["encoding-version"] = version
    if columns is not None:
        item.attrs["_index"] = "_index"
        item.attrs.create("column-order", np.array(columns, object), dtype=_TEXT)


def _grow(
    group: Any, name: str, dtype: Any, width: tuple[int, ...] = (), *, encoding: str = "array"
) -> None:
    """Create a dataset without rows that can grow."""
    made = group.create_dataset(
        name, (0, *width), dtype, maxshape=(None, *width), chunks=(_CHUNK_ROWS, *width)
    )
    _encode(made, encoding, "0.2.0")


def _append(dataset: Any, rows: Any) -> None:
    begin = len(dataset)
    dataset.resize(begin + len(rows), axis=0)
    dataset[begin:] = rows


def _put_text(group: Any, name: str, texts: Sequence[str]) -> None:
    made = group.create_dataset(name, data=np.array(texts, object), dtype=_TEXT)
    _encode(made, "string-array", "0.2.0")


def _put_dict(group: Any, name: str, values: Mapping[str, Any]) -> None:
    """Write text, in dictionaries of any depth."""
    made = group.create_group(name)
    _encode(made, "dict", "0.1.0")
    for key, value in values.items():
        if isinstance(value, Mapping):
            _put_dict(made, key, value)
        else:
            _encode(made.create_dataset(key, data=str(value), dtype=_TEXT), "string", "0.2.0")
