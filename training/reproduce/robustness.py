"""Simulate other microscopes with labelled fields (magnified, recoloured, blurred) and measure what
is still found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter
from pydantic import BaseModel, ConfigDict, Field

from rbc_engine.engine import Engine
from rbc_engine.errors import ImageError, UsageError
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.evaluation_fields import warn_of_training
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.training.evaluation.report.tables import Table
from rbc_engine.training.fit.augment import jpeg
from rbc_engine.training.reproduce.study_files import write_result
from rbc_engine.types.arrays import Float32, UInt8
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.regions import Regions

__all__ = ["LOOKS", "RobustnessRow", "RobustnessTable", "measure_robustness", "write_robustness"]

Mask = npt.NDArray[np.bool_]
Log = Callable[[str], None]
Look = Callable[[UInt8], UInt8]


# Least visible share of a cell's width: nobody could classify less.
_LEAST_WIDTH = 0.25


def _tinted(red: float, green: float, blue: float) -> Look:
    """Return a look with each channel multiplied: another stain, another white balance."""

    def look(pixels: UInt8) -> UInt8:
        gains = np.array([red, green, blue])
        return np.asarray(np.clip(np.rint(pixels * gains), 0, 255).astype(np.uint8))

    return look


def _exchanged(pixels: UInt8) -> UInt8:
    """Exchange red and blue, as when a camera's BGR is taken for RGB."""
    return np.ascontiguousarray(pixels[..., ::-1])


def _pale(pixels: UInt8) -> UInt8:
    """Halve the contrast, towards white: a weak stain."""
    return (255 - (255 - pixels.astype(np.uint16)) // 2).astype(np.uint8)


def _saturation(times: float) -> Look:
    def look(pixels: UInt8) -> UInt8:
        return np.asarray(ImageEnhance.Color(Image.fromarray(pixels)).enhance(times))

    return look


def _out_of_focus(pixels: UInt8) -> UInt8:
    blur = ImageFilter.GaussianBlur(pixels.shape[0] / 480 * 2.0)
    return np.asarray(Image.fromarray(pixels).filter(blur))


def _noisy(pixels: UInt8) -> UInt8:
    noise = np.random.default_rng(0).normal(0, 12, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


LOOKS: dict[str, Look] = {
    "as it is": lambda pixels: pixels,
    "pink": _tinted(1.15, 0.85, 1.0),
    "yellow": _tinted(1.1, 1.0, 0.7),
    "dark": _tinted(0.55, 0.55, 0.55),
    "pale": _pale,
    "red and blue exchanged": _exchanged,
    "grey": _saturation(0.0),
    "saturated": _saturation(2.0),
    "out of focus": _out_of_focus,
    "noisy": _noisy,
    "JPEG of quality 30": lambda pixels: jpeg(pixels, quality=30),
}
"""uint8 [H, W, 3] to the same. Blur: a Gaussian of 2 px in 480. Noise: a standard deviation of 12
levels.
"""


class RobustnessRow(BaseModel):
    """Hold the measures of one look at one magnification. Shares are in 0..1; None over nothing.

    cells: whole isolated cells. found: their share that a detection matches at an IoU of 0.5.
    cut: regions cut by an edge, with at least a quarter of a cell's width visible. cut_found: as
    found.
    centres: labelled cells of any region in view. centres_hit: their share in a detection.
    on_background: of the detections, those less than half covered by true regions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    magnification: float
    look: str
    cells: int
    found: float | None
    cut: int
    cut_found: float | None
    centres: int
    centres_hit: float | None
    on_background: float | None


class RobustnessTable(BaseModel):
    """Hold the whole of robustness.json. notes: what a reader of the measures should know, a line
    each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    pack: str
    pack_sha256: str
    precision: str
    dataset: str
    smear_groups: tuple[str, ...]
    fields: int
    seed: int
    rows: tuple[RobustnessRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class _View:
    """Show a part of a field, enlarged to the size of the field. Its pixels are read when needed,
    since fields may be many.

    corners: x0 y0 x1 y1 of the part, in pixels of the field. regions: float32 [R, 4], the visible
    parts of the true regions. is_cell, is_cut: bool [R], see RobustnessRow. centres: float32 [N,
    2], labelled cells in view. All in pixels of the view.
    """

    field: LabelledField
    corners: tuple[float, float, float, float]
    regions: Float32
    is_cell: Mask
    is_cut: Mask
    centres: Float32

    def pixels(self) -> UInt8:
        """Read the pixels, uint8 [H, W, 3]. Raises ImageError if the field cannot be read."""
        image = Image.fromarray(read_image(self.field.path, name=str(self.field.path)))
        part = image.resize(image.size, Image.Resampling.BICUBIC, box=self.corners)
        return np.asarray(part)


def measure_robustness(
    engine: Engine,
    dataset: Dataset,
    fields: Sequence[LabelledField],
    *,
    magnifications: Sequence[float],
    looks: Sequence[str],
    seed: int,
    log: Log,
) -> RobustnessTable:
    """Run the engine over parts of fields, each enlarged to a field's size and recoloured.

    Enlarging adds no detail: a real objective of the same magnification shows more. The parts are
    drawn at random, the same for every look. The engine is not given the scale.

    magnifications: at least 1. looks: of LOOKS.

    Raises UsageError for other values, ImageError if a field cannot be analysed.
    """
    if unknown := [look for look in looks if look not in LOOKS]:
        raise UsageError(
            f"--looks must be of {', '.join(LOOKS)}, separated by commas (got {', '.join(unknown)})"
        )
    if not magnifications or not all(1 <= times <= 8 for times in magnifications):
        raise UsageError(
            f"--magnifications must lie in 1..8 (got {', '.join(map(str, magnifications))})"
        )
    pack = engine.pack
    rows = []
    for times in magnifications:
        views = list(_views(fields, times, seed=seed))
        for look in looks:
            log(f"{times:g} times, {look}")
            found = _analyse(engine, views, LOOKS[look])
            rows.append(_measure(views, found, magnification=times, look=look))
    return RobustnessTable(
        schema=1,
        pack=f"{pack.name} {pack.manifest.version}",
        pack_sha256=pack.sha256,
        precision=engine.choice.device.precision,
        dataset=dataset.name,
        smear_groups=tuple(sorted({field.group for field in fields})),
        fields=len(fields),
        seed=seed,
        rows=tuple(rows),
        notes=tuple(warn_of_training(pack, dataset, fields)),
    )


def write_robustness(folder: Path, table: RobustnessTable) -> None:
    """Write robustness.json and robustness.md. Raises OutputError if writing fails."""
    summary = (
        f"{table.pack} in {table.precision}, on {table.fields} fields of {len(table.smear_groups)} "
        f"smear groups of {table.dataset}: a part of each, drawn at random (seed {table.seed}) and "
        "enlarged to the size of a field. Found, at IoU 0.5: whole isolated cells, and regions "
        "that an edge cuts; hit: labelled centres in a detection; on background: detections less "
        "than half covered by regions."
    )
    write_result(
        folder,
        "robustness",
        values=table,
        title="Light, stain and magnification",
        lines=[summary, *(f"Note: {note}." for note in table.notes)],
        tables=[
            Table(
                title="What is found",
                headings=(
                    "magnified",
                    "look",
                    "cells",
                    "found",
                    "cut",
                    "found",
                    "centres",
                    "hit",
                    "on background",
                ),
                rows=[
                    (
                        f"{row.magnification:g}",
                        row.look,
                        str(row.cells),
                        _shown(row.found),
                        str(row.cut),
                        _shown(row.cut_found),
                        str(row.centres),
                        _shown(row.centres_hit),
                        _shown(row.on_background),
                    )
                    for row in table.rows
                ],
            )
        ],
    )


def _views(fields: Sequence[LabelledField], times: float, *, seed: int) -> Iterator[_View]:
    rng = np.random.default_rng(seed)
    for field in fields:
        height, width = read_image(field.path, name=str(field.path)).shape[:2]
        shown = np.array([width, height]) / times
        low = rng.uniform(0, 1, 2) * (np.array([width, height]) - shown)
        high = low + shown
        boxes = field.boxes
        meets = ((boxes[:, 2:] > low) & (boxes[:, :2] < high)).all(axis=1)
        whole = ((boxes[:, :2] > low) & (boxes[:, 2:] < high)).all(axis=1)
        inside = np.clip(boxes.reshape(-1, 2), low, high).reshape(-1, 4)
        cell_px = (
            np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))) if len(boxes) else 0
        )
        wide = (inside[:, 2:] - inside[:, :2]).min(axis=1) >= _LEAST_WIDTH * cell_px
        centres = field.centres[((field.centres > low) & (field.centres < high)).all(axis=1)]

        def seen(points: Float32, low: npt.NDArray[np.float64] = low) -> Float32:
            return np.asarray(((points.reshape(-1, 2) - low) * times), np.float32)

        yield _View(
            field=field,
            corners=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
            regions=seen(inside[meets]).reshape(-1, 4),
            is_cell=(whole & field.known & field.isolated)[meets],
            is_cut=(~whole & wide)[meets],
            centres=seen(centres),
        )


def _analyse(engine: Engine, views: Sequence[_View], look: Look) -> list[Regions]:
    """Analyse the views in a look; raise ImageError if one cannot be analysed."""

    def decoded() -> Iterator[Decoded]:
        for view in views:
            field = view.field
            ref = FieldRef(slide=field.group, field=field.path.name, path=field.path)
            frame = Frame(pixels=look(view.pixels()), slide=ref.slide, field=ref.field)
            yield Decoded(ref=ref, frame=frame)

    found = []
    for result in engine.run(decoded()):
        if result.regions is None:
            raise ImageError(f"{result.path}: {result.error}")
        found.append(result.regions.take(result.regions.red))
    return found


def _measure(
    views: Sequence[_View], found: Sequence[Regions], *, magnification: float, look: str
) -> RobustnessRow:
    cells, cut, hits, background = [], [], [], []
    for view, regions in zip(views, found, strict=True):
        match = metrics.match_regions(regions.boxes, regions.scores, view.regions)
        matched = np.isin(np.arange(len(view.regions)), match)
        cells.append(matched[view.is_cell])
        cut.append(matched[view.is_cut])
        hits.append(metrics.centres_hit(regions.boxes, view.centres))
        background.append(metrics.covered_share(regions.boxes, view.regions) < 0.5)
    isolated, at_edge, centres, detections = map(np.concatenate, (cells, cut, hits, background))
    return RobustnessRow(
        magnification=magnification,
        look=look,
        cells=len(isolated),
        found=_share(isolated),
        cut=len(at_edge),
        cut_found=_share(at_edge),
        centres=len(centres),
        centres_hit=_share(centres),
        on_background=_share(detections),
    )


def _share(mask: Mask) -> float | None:
    return metrics.share(mask) if mask.size else None


def _shown(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"
