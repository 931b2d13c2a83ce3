"""Gather what a report says of slides and fields, field by field, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rbc_engine.sinks.report.pictures import field_jpeg, patch_jpeg
from rbc_engine.sinks.report.stock import Stock
from rbc_engine.stats.counts import SlideCounts
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldFlag, FieldResult

__all__ = ["FLAGS", "FieldRow", "Findings", "Patch", "PicturedField", "SlideFindings"]

FLAGS = tuple(RegionFlag)

FIELDS_BYTES = 12 << 20
PATCHES_BYTES = 4 << 20
"""Of the file, for the pictures of fields with their boxes, and for those of single regions."""

FIELDS_LISTED = 20_000
"""Fields without a picture beyond these are counted, not listed."""

PATCHES_PER_END = 8
"""Of a type on a slide: so many of the surest, and as many of the least sure."""

_BYTES_PER_REGION = 105
_BASE64 = 4 / 3


@dataclass(frozen=True, kw_only=True)
class FieldRow:
    """Hold one line of the list of fields. number: place in the run, from 0.

    regions, abnormal: of red cells; whole, whole_abnormal: those of them that no border cuts.
    flags: how many of them have each of FLAGS. white_cells, platelets: regions of these.
    field_flags: bits of FieldFlag.
    """

    number: int
    slide: str
    name: str
    width: int
    height: int
    regions: int
    abnormal: int
    whole: int
    whole_abnormal: int
    flags: tuple[int, ...]
    white_cells: int
    platelets: int
    field_flags: FieldFlag
    saturated: bool
    error: str | None


class PicturedField(NamedTuple):
    row: FieldRow
    jpeg: bytes
    regions: Regions


class Patch(NamedTuple):
    """Hold a patch of the gallery.

    region: its index within the field. p: of the type that it stands for. abnormal_p: that it holds
    an abnormal cell. cells: least and most number of cells in it. flags: bits of RegionFlag.
    """

    field: str
    region: int
    p: float
    abnormal: bool
    abnormal_p: float
    cells: tuple[int, int]
    flags: int
    jpeg: bytes


@dataclass(eq=False, kw_only=True)
class SlideFindings:
    """Hold what is counted of a slide.

    flags: int64, how many red regions have each of FLAGS. unfamiliar: fields. seen: fields whose
    image was at hand.
    """

    counts: SlideCounts
    saturated: int = 0
    unfamiliar: int = 0
    seen: int = 0
    flags: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(FLAGS), dtype=np.int64)
    )


class Findings:
    """Gather results in order, in memory bounded by the constants above and the number of slides.

    Which fields have a picture is a random sample of each slide, the same in every run of the same
    images.
    """

    def __init__(self, types: Sequence[str]) -> None:
        self._types = types
        self.slides: dict[str, SlideFindings] = {}
        self.rows: list[FieldRow] = []
        self.fields = 0
        self.pictures: Stock[str, PicturedField] = Stock(budget_bytes=FIELDS_BYTES)
        self.surest: Stock[tuple[str, int], Patch] = Stock(
            budget_bytes=PATCHES_BYTES // 2, most=PATCHES_PER_END
        )
        self.least_sure: Stock[tuple[str, int], Patch] = Stock(
            budget_bytes=PATCHES_BYTES // 2, most=PATCHES_PER_END
        )

    def add(self, result: FieldResult) -> None:
        slide, regions = result.slide, result.regions
        found = self.slides.get(slide)
        if found is None:
            found = self.slides[slide] = SlideFindings(counts=SlideCounts(slide=slide))
        row = _row(result, self.fields)
        self.fields += 1
        if len(self.rows) < FIELDS_LISTED:
            self.rows.append(row)
        found.counts.add(result)
        found.saturated += result.saturated
        found.unfamiliar += FieldFlag.UNFAMILIAR in result.flags
        found.flags += row.flags
        if regions is not None and result.frame is not None:
            found.seen += 1
            pixels = result.frame.pixels
            self._keep_picture(row, pixels, regions)
            self._keep_patches(row, pixels, regions)

    def _keep_picture(self, row: FieldRow, pixels: UInt8, regions: Regions) -> None:
        name = f"{row.slide}\0{row.name}".encode("utf-8", "backslashreplace")
        rank = int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), "big")
        if self.pictures.wants(row.slide, rank):
            jpeg = field_jpeg(pixels)
            size = round(len(jpeg) * _BASE64) + _BYTES_PER_REGION * len(regions)
            self.pictures.add(row.slide, rank, PicturedField(row, jpeg, regions), size=size)

    def _keep_patches(self, row: FieldRow, pixels: UInt8, regions: Regions) -> None:
        drawn: dict[int, bytes] = {}
        for type_index in range(len(self._types)):
            group = (row.slide, type_index)
            for region in np.flatnonzero(regions.has[:, type_index]).tolist():
                p = float(regions.probabilities[region, type_index])
                for stock, rank in ((self.surest, -p), (self.least_sure, p)):
                    if not stock.wants(group, rank):
                        continue
                    if region not in drawn:
                        drawn[region] = patch_jpeg(pixels, regions.boxes[region])
                    jpeg = drawn[region]
                    patch = Patch(
                        field=row.name,
                        region=region,
                        p=p,
                        abnormal=bool(regions.abnormal[region]),
                        abnormal_p=float(regions.abnormal_p[region]),
                        cells=(int(regions.cells_low[region]), int(regions.cells_high[region])),
                        flags=int(regions.flags[region]),
                        jpeg=jpeg,
                    )
                    stock.add(group, rank, patch, size=round(len(jpeg) * _BASE64) + 100)


def _row(result: FieldResult, number: int) -> FieldRow:
    kinds, bits, abnormal = np.zeros(0, np.uint8), np.zeros(0, np.uint8), np.zeros(0, np.bool_)
    if result.regions is not None:
        red = result.regions.red
        kinds, bits = result.regions.kinds, result.regions.flags[red]
        abnormal = result.regions.abnormal[red]
    whole = (bits & RegionFlag.BORDER) == 0
    return FieldRow(
        number=number,
        slide=result.slide,
        name=result.field,
        width=result.width,
        height=result.height,
        regions=len(bits),
        abnormal=int(abnormal.sum()),
        whole=int(whole.sum()),
        whole_abnormal=int(abnormal[whole].sum()),
        flags=tuple(int(np.count_nonzero(bits & flag)) for flag in FLAGS),
        white_cells=int((kinds == Kind.WHITE_CELL).sum()),
        platelets=int((kinds == Kind.PLATELET).sum()),
        field_flags=result.flags,
        saturated=result.saturated,
        error=result.error,
    )
