"""Read the rows of regions.parquet back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rbc_engine.sinks.tables.regions_parquet import FLAG_NAMES, region_schema
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.cells import Cells
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import Regions

__all__ = ["RegionsTable", "kind_numbers", "text_codes"]


class RegionsTable:
    """Hold rows of a regions.parquet as arrays, as RegionsParquet wrote them.

    slides, fields: int [N], index into slide_names and field_names, for each row. Cells are not
        among them.
    """

    def __init__(self, table: Any, types: Sequence[str]) -> None:
        """Read a pyarrow table with the columns of `columns`.

        Raises ValueError for an unknown flag or kind.
        """

        def array(name: str) -> Any:
            return table.column(name).to_numpy()

        def matrix(names: Sequence[str]) -> Any:
            return np.stack([array(name) for name in names], axis=1)

        self.numbers = array("region")
        self.slides, self.slide_names = text_codes(table.column("slide"))
        self.fields, self.field_names = text_codes(table.column("field"))
        flags, flag_names = text_codes(table.column("flags"))
        unknown = set(flag_names) - set(FLAG_NAMES)
        if unknown:
            raise ValueError(f"flags {min(unknown)!r:.80} are not known")
        bits = np.array([FLAG_NAMES.index(name) for name in flag_names], np.uint8)
        self._regions = Regions(
            boxes=matrix(("x0", "y0", "x1", "y1")),
            scores=array("score"),
            kinds=kind_numbers(table.column("kind")),
            probabilities=matrix([f"p_{name}" for name in types]),
            has=matrix([f"has_{name}" for name in types]),
            abnormal_p=array("abnormal_p"),
            abnormal=array("abnormal"),
            flags=bits[flags],
            cells_low=array("cells_low"),
            cells_high=array("cells_high"),
            cells=Cells.empty(),
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def regions(self, begin: int, end: int) -> Regions:
        """Take some rows."""
        return self._regions.take(slice(begin, end))

    @staticmethod
    def schema(types: Sequence[str]) -> Any:
        """Return the schema of a file with these types, without its metadata."""
        return region_schema(types)


def text_codes(column: Any) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Read a column of text as indices into its distinct values."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = (
            encoded.chunk(0)
            if encoded.num_chunks
            else pa.array([], pa.string()).dictionary_encode()
        )
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def kind_numbers(column: Any) -> UInt8:
    """Read a column of labels as uint8 [N], of Kind.

    Raises ValueError for one that is not known.
    """
    codes, labels = text_codes(column)
    return np.array([Kind.of(label) for label in labels], np.uint8)[codes]
