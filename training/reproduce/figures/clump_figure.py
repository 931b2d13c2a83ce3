"""Make Figure 6 (Qiu et al. 2019): predictions of the classifier for example clumps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from rbc_engine.errors import UsageError
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.evaluation.report.tables import Table
from rbc_engine.training.reproduce.figures.contact_sheet import GREEN, INK, RED, Tile, contact_sheet
from rbc_engine.training.reproduce.held_out import HeldOut
from rbc_engine.training.reproduce.study_files import to_png, write_result

__all__ = ["ClumpFigure", "choose_clumps", "write_clump_figure"]

_MARGIN = 1.15
_SIDE_PX = 180
_COLUMNS = 4
_LIKELIEST = 4


class Clump(BaseModel):
    """Describe a clump. box: x0 y0 x1 y1, pixels of the image. cells: as labelled."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    image: str
    smear_group: str
    box: tuple[float, float, float, float]
    cells: int
    types: tuple[str, ...]
    probabilities: dict[str, float]


class ClumpFigure(BaseModel):
    """Hold the whole of figure6.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_: Literal[1] = Field(default=1, alias="schema")
    seed: int
    several_cell_regions: int
    """The regions from which the clumps were drawn."""
    clumps: tuple[Clump, ...]


def choose_clumps(held_out: HeldOut, types: Sequence[str], *, count: int, seed: int) -> ClumpFigure:
    """Draw clumps at random from the regions of several cells, so that nobody picks the best.

    types: T names. count: all there are, if they are fewer.

    Raises UsageError if there are none.
    """
    several = np.flatnonzero(held_out.cells >= 2)
    if not len(several):
        raise UsageError(
            "--work has no held-out region of several cells to show; label some, or run more folds"
        )
    drawn = np.random.default_rng(seed).permutation(several)[:count]
    return ClumpFigure(
        schema=1,
        seed=seed,
        several_cell_regions=len(several),
        clumps=tuple(
            Clump(
                image=str(held_out.images[index]),
                smear_group=str(held_out.groups[index]),
                box=tuple(held_out.boxes[index].tolist()),
                cells=int(held_out.cells[index]),
                types=tuple(np.array(types)[held_out.types[index]].tolist()),
                probabilities=dict(zip(types, held_out.probabilities[index].tolist(), strict=True)),
            )
            for index in drawn
        ),
    )


def write_clump_figure(folder: Path, figure: ClumpFigure, *, data: Path) -> None:
    """Write figure6.json, figure6.md and figure6.png. data: the folder of the images.

    Raises ImageError for an image that cannot be read, OutputError if writing fails.
    """
    names = tuple(figure.clumps[0].probabilities)
    rows = [
        (
            str(number),
            clump.image,
            str(clump.cells),
            *(_cell(clump, name) for name in names),
        )
        for number, clump in enumerate(figure.clumps, 1)
    ]
    sheet = contact_sheet(
        [_tile(number, clump, data) for number, clump in enumerate(figure.clumps, 1)],
        columns=_COLUMNS,
        side_px=_SIDE_PX,
    )
    write_result(
        folder,
        "figure6",
        values=figure,
        title="Figure 6: probabilities of the types in clumps",
        lines=[
            f"Drawn at random (seed {figure.seed}) from {figure.several_cell_regions} regions of "
            "several cells, each classified by a Model A that saw no field of its smear. A star "
            "marks the types of the labels; in the picture they are green, others red, and the "
            f"likeliest {_LIKELIEST} are shown."
        ],
        tables=[Table(title="Probabilities", headings=("", "image", "cells", *names), rows=rows)],
        pictures={"figure6.png": to_png(sheet)},
    )


def _cell(clump: Clump, name: str) -> str:
    star = " *" if name in clump.types else ""
    return f"{clump.probabilities[name]:.2f}{star}"


def _tile(number: int, clump: Clump, data: Path) -> Tile:
    pixels = read_image(data / clump.image, name=clump.image)
    x0, y0, x1, y1 = clump.box
    half = max(x1 - x0, y1 - y0) * _MARGIN / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    # Pixels outside the image are black.
    crop = Image.fromarray(pixels).crop(
        (round(x - half), round(y - half), round(x + half), round(y + half))
    )
    likeliest = sorted(clump.probabilities.items(), key=lambda item: -item[1])[:_LIKELIEST]
    lines = [
        (f"{name.replace('_', ' ')} {p:.2f}", GREEN if name in clump.types else RED)
        for name, p in likeliest
    ]
    return Tile(picture=crop, lines=[(f"{number}: {clump.cells} cells", INK), *lines])
