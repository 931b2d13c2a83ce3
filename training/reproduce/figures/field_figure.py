"""Make Figure 7 (Qiu et al. 2019): a field, coloured by the result for each region."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel, ConfigDict, Field

from rbc_engine.engine import Engine
from rbc_engine.errors import RbcError, UsageError
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.evaluation_fields import in_pack_order, warn_of_training
from rbc_engine.training.datasets.foreground import foreground_mask
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.training.evaluation.report.tables import Table
from rbc_engine.training.reproduce.figures.contact_sheet import BLUE, GREEN, RED
from rbc_engine.training.reproduce.study_files import to_png, write_result
from rbc_engine.types.arrays import Float32, UInt8
from rbc_engine.types.regions import Regions

__all__ = ["FieldFigure", "Verdict", "compare_regions", "draw_field", "find_field", "show_field"]

_GREY = (110, 110, 110)
_MASK_OPACITY = 0.4
_PX_PER_LINE_PX = 300
_FONT_PX = 13


class Verdict(str, Enum):
    """State the result for a region."""

    RIGHT = "right"
    """Found, with all types right."""
    WRONG = "wrong"
    """Found, with a type wrong; or a detection where there is no region."""
    MISSED = "missed"
    """Not found at IoU 0.5."""
    UNCOMPARED = "uncompared"
    """Found, but a cell of it has no label."""


_COLOURS = {
    Verdict.RIGHT: GREEN,
    Verdict.WRONG: RED,
    Verdict.MISSED: BLUE,
    Verdict.UNCOMPARED: _GREY,
}


class FieldFigure(BaseModel):
    """Hold the whole of figure7.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    pack: str
    pack_sha256: str
    image: str
    smear_group: str
    counts: dict[Verdict, int]
    """Detections by verdict, and regions missed."""
    abnormal: int
    """Detections that are called abnormal."""
    notes: tuple[str, ...]


def find_field(dataset: Dataset, name: str) -> LabelledField:
    """Return the labelled field with this image file name. Raises UsageError if there is none."""
    for field in dataset.fields:
        if field.path.name == name and field.known.any():
            return field
    examples = [field.path.name for field in dataset.fields if field.known.any()][:3]
    raise UsageError(
        "--field must be the file name of an image with labelled regions, such as "
        f"{', '.join(examples)} (got {name!r})"
    )


def compare_regions(found: Regions, field: LabelledField) -> tuple[list[Verdict], Float32]:
    """Return the verdict on each of D detections, and the boxes float32 [M, 4] of the regions that
    none of them matches.

    field: with types in the order of the detections'.
    """
    match = metrics.match_regions(found.boxes, found.scores, field.boxes)
    verdicts = []
    for index, region in enumerate(match.tolist()):
        if region < 0:
            verdicts.append(Verdict.WRONG)
        elif not field.known[region]:
            verdicts.append(Verdict.UNCOMPARED)
        else:
            right = np.array_equal(found.has[index], field.types[region])
            verdicts.append(Verdict.RIGHT if right else Verdict.WRONG)
    return verdicts, np.delete(field.boxes, match[match >= 0], axis=0)


def draw_field(
    pixels: UInt8, found: Regions, verdicts: Sequence[Verdict], missed: Float32
) -> Image.Image:
    """Draw the field with a box for each region in the colour of its verdict, cells of abnormal
    regions masked red, and a legend below.

    pixels: uint8 [H, W, 3]. verdicts: of D detections. missed: float32 [M, 4].
    """
    height, width = pixels.shape[:2]
    shown = pixels.copy()
    cells = foreground_mask(pixels)
    for x0, y0, x1, y1 in np.rint(found.boxes[found.abnormal]).astype(int).clip(0).tolist():
        inside = shown[y0:y1, x0:x1][cells[y0:y1, x0:x1]].astype(np.float32)
        inside += _MASK_OPACITY * (np.array(RED, np.float32) - inside)
        shown[y0:y1, x0:x1][cells[y0:y1, x0:x1]] = inside.round().astype(np.uint8)
        cells[y0:y1, x0:x1] = False  # where two boxes overlap, once is enough
    picture = Image.new("RGB", (width, height + 2 * _FONT_PX), (255, 255, 255))
    picture.paste(Image.fromarray(shown))
    draw = ImageDraw.Draw(picture)
    line_px = max(1, round(min(height, width) / _PX_PER_LINE_PX))
    marks = [*zip(found.boxes, verdicts, strict=True), *((box, Verdict.MISSED) for box in missed)]
    for box, verdict in marks:
        draw.rectangle(np.rint(box).tolist(), outline=_COLOURS[verdict], width=line_px)
    font = ImageFont.load_default(_FONT_PX)
    left = float(_FONT_PX)
    for text, colour in (*((v.value, c) for v, c in _COLOURS.items()), ("masked: abnormal", RED)):
        draw.text((left, height + _FONT_PX), text, fill=colour, font=font, anchor="lm")
        left += draw.textlength(text, font) + 2 * _FONT_PX
    return picture


def show_field(folder: Path, dataset: Dataset, field: LabelledField, *, engine: Engine) -> None:
    """Run the engine on the field, and write figure7.json, figure7.md and figure7.png.

    Raises UsageError if the pack's types are not those of the data, OutputError if writing fails.
    """
    pack = engine.pack
    (labelled,), reason = in_pack_order(pack, dataset, [field])
    if reason is not None:
        raise UsageError(f"--pack {pack.name} does not fit --data: {reason}")
    pixels = read_image(field.path, name=field.path.name)
    found = engine.analyze(pixels).regions
    if found is None:
        raise RbcError(f"the engine gave no regions for {field.path.name}; report this")
    found = found.take(found.red)
    verdicts, missed = compare_regions(found, labelled)
    counts = {verdict: verdicts.count(verdict) for verdict in Verdict}
    counts[Verdict.MISSED] = len(missed)
    figure = FieldFigure(
        schema=1,
        pack=f"{pack.name} {pack.manifest.version}",
        pack_sha256=pack.sha256,
        image=field.path.name,
        smear_group=field.group,
        counts=counts,
        abnormal=int(found.abnormal.sum()),
        notes=tuple(warn_of_training(pack, dataset, [field])),
    )
    write_result(
        folder,
        "figure7",
        values=figure,
        title="Figure 7: a field as the engine sees it",
        lines=[
            f"{figure.image} of smear group {field.group}, by {figure.pack}. Blue: a region that "
            "was missed. Green: found, with all types right. Red: a type wrong, or no region "
            "there. Grey: found but not scored, because a cell in it has no label. Masked red: "
            "called abnormal.",
            *(f"Note: {note}." for note in figure.notes),
        ],
        tables=[
            Table(
                title="Regions",
                headings=("", "regions"),
                rows=[
                    *((verdict.value, str(count)) for verdict, count in counts.items()),
                    ("called abnormal", str(figure.abnormal)),
                ],
            )
        ],
        pictures={"figure7.png": to_png(draw_field(pixels, found, verdicts, missed))},
    )
