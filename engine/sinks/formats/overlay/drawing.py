"""Draw a frame with its regions: a box each, what it holds, and a legend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.formats.overlay.labels import place_labels
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["ABNORMAL_RGB", "KIND_RGB", "NORMAL_RGB", "UNSURE_RGB", "OverlayStyle", "draw_overlay"]

NORMAL_RGB = (0, 114, 178)
ABNORMAL_RGB = (213, 94, 0)
"""Okabe and Ito's blue and vermilion, distinguishable with any colour vision."""
KIND_RGB = {
    Kind.WHITE_CELL: (86, 180, 233),
    Kind.PLATELET: (0, 158, 115),
    Kind.ARTEFACT: (204, 121, 167),
}
"""What is no red cell: sky blue, green and purple of that palette."""
UNSURE_RGB = (112, 112, 112)

_WHITE = (255, 255, 255)
_INK = (30, 30, 30)

_PX_PER_LINE_PX = 400
_PX_PER_FONT_PX = 68
_SMALLEST_FONT_PX = 11

_Box = tuple[int, int, int, int]
_Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class OverlayStyle:
    """Hold what a picture shows of the pack.

    types: T names to show, in the pack's order.
    abnormal_types: bool [T].
    title: which pack, and where it draws the line.
    """

    types: tuple[str, ...]
    abnormal_types: npt.NDArray[np.bool_]
    title: str

    @classmethod
    def of(cls, pack: Pack) -> OverlayStyle:
        threshold = pack.manifest.caller.threshold
        return cls(
            types=tuple(name.replace("_", " ") for name in pack.types),
            abnormal_types=np.isin(pack.types, pack.manifest.abnormal),
            title=f"{pack.name} {pack.manifest.version}, abnormal at p >= {threshold:.2f}",
        )


def draw_overlay(
    pixels: UInt8, regions: Regions, *, style: OverlayStyle, saturated: bool = False
) -> Image.Image:
    """Draw the frame at its own size with a legend below: boxes keep their pixel coordinates.

    pixels: uint8 [H, W, 3], RGB.
    saturated: the legend says that regions may be missing.
    """
    height, width = pixels.shape[:2]
    line_px = max(1, round(min(height, width) / _PX_PER_LINE_PX))
    font_px = max(_SMALLEST_FONT_PX, round(min(height, width) / _PX_PER_FONT_PX))
    font = _font(font_px)
    picture = Image.new("RGB", (width, height + 2 * font_px), _WHITE)
    picture.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(picture)

    corners = np.clip(np.rint(regions.boxes), 0, (width, height, width, height)).astype(np.float32)
    colours = [_colour(regions, index) for index in range(len(regions))]
    _draw_cells(draw, regions, colours, limits=(width, height))
    for index in np.argsort(regions.abnormal, kind="stable"):  # abnormal ones on top
        x0, y0, x1, y1 = (int(side) for side in corners[index])
        _draw_box(
            draw,
            (x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)),
            colour=colours[index],
            line_px=line_px,
            dashed=bool(regions.flags[index] & RegionFlag.BORDER),
        )
    padding_px = max(2, font_px // 5)
    label_height = font_px + padding_px
    for label in place_labels(
        regions,
        corners,
        types=style.types,
        abnormal_types=style.abnormal_types,
        measure=lambda text: _text_px(text, font_px) + 2 * padding_px,
        height=label_height,
        image_size=(width, height),
    ):
        right, bottom = label.left + label.width - 1, label.top + label_height - 1
        draw.rectangle((label.left, label.top, right, bottom), fill=colours[label.region])
        middle = (label.left + padding_px, label.top + label_height / 2)
        draw.text(middle, label.text, fill=_WHITE, font=font, anchor="lm")
    _draw_legend(
        draw,
        _legend(regions, saturated=saturated),
        style.title,
        font=font,
        line_px=line_px,
        strip=(0, height, width, height + 2 * font_px),
    )
    return picture


def _colour(regions: Regions, index: int) -> _Colour:
    kind = Kind(regions.kinds[index])
    if kind is not Kind.RED:
        return KIND_RGB[kind]
    if regions.flags[index] & RegionFlag.UNSURE:
        return UNSURE_RGB
    return ABNORMAL_RGB if regions.abnormal[index] else NORMAL_RGB


def _draw_cells(
    draw: ImageDraw.ImageDraw,
    regions: Regions,
    colours: list[_Colour],
    *,
    limits: tuple[int, int],
) -> None:
    """Draw a thin box for each cell of a region of several.

    limits: width and height of the picture, px.
    """
    cells = regions.cells
    several = cells.per_region(len(regions)) > 1
    shown = np.flatnonzero(several[cells.region])
    corners = np.clip(np.rint(cells.boxes[shown]), 0, (*limits, *limits)).astype(int)
    for region, (x0, y0, x1, y1) in zip(
        cells.region[shown].tolist(), corners.tolist(), strict=True
    ):
        box = (x0, y0, max(x1 - 1, x0), max(y1 - 1, y0))
        _draw_box(draw, box, colour=colours[region], line_px=1)


@lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


@lru_cache(maxsize=1 << 14)
def _text_px(text: str, font_px: int) -> int:
    """Measure a text, cached because fields share most labels."""
    return round(_font(font_px).getlength(text))


def _draw_box(
    draw: ImageDraw.ImageDraw,
    box: _Box,
    *,
    colour: _Colour,
    line_px: int,
    dashed: bool = False,
) -> None:
    """Draw a box. box: x0 y0 x1 y1 in px, all within the outline."""
    if not dashed:
        draw.rectangle(box, outline=colour, width=line_px)
        return
    x0, y0, x1, y1 = box
    dash_px = 4 * line_px
    inset = line_px - 1
    for start in range(x0, x1 + 1, 2 * dash_px):
        end = min(start + dash_px - 1, x1)
        draw.rectangle((start, y0, end, min(y0 + inset, y1)), fill=colour)
        draw.rectangle((start, max(y1 - inset, y0), end, y1), fill=colour)
    for start in range(y0, y1 + 1, 2 * dash_px):
        end = min(start + dash_px - 1, y1)
        draw.rectangle((x0, start, min(x0 + inset, x1), end), fill=colour)
        draw.rectangle((max(x1 - inset, x0), start, x1, end), fill=colour)


def _legend(regions: Regions, *, saturated: bool) -> list[tuple[str, _Colour, bool]]:
    """List text, colour and whether dashed of each mark, the most important first."""
    unsure = regions.red & ((regions.flags & RegionFlag.UNSURE) > 0)
    sure = regions.red & ~unsure
    cut = int(np.count_nonzero(regions.flags & RegionFlag.BORDER))
    marks = [
        (f"{int((sure & regions.abnormal).sum())} abnormal", ABNORMAL_RGB, False),
        (f"{int((sure & ~regions.abnormal).sum())} normal", NORMAL_RGB, False),
    ]
    if unsure.any():
        marks.append((f"{int(unsure.sum())} unsure", UNSURE_RGB, False))
    for kind, colour in KIND_RGB.items():
        count = int((regions.kinds == kind).sum())
        if count:
            name = kind.label.replace("_", " ")
            marks.append((f"{count} {name}{'s' if count > 1 else ''}", colour, False))
    marks.append((f"{cut} of them at the border", _INK, True))
    missing = [("saturated: some may be missing", _INK, False)] if saturated else []
    return missing + marks


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    marks: list[tuple[str, _Colour, bool]],
    title: str,
    *,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    line_px: int,
    strip: _Box,
) -> None:
    """Draw the marks from the left and the title at the right, each if there is room."""
    left, top, right, bottom = strip
    middle = (top + bottom) / 2
    swatch_px = (bottom - top) // 2
    gap_px = swatch_px // 2
    x = left + gap_px
    for text, colour, dashed in marks:
        end = x + 2 * swatch_px + gap_px + round(draw.textlength(text, font))
        if end > right:
            continue
        y0 = top + (bottom - top - swatch_px) // 2
        box = (x, y0, x + 2 * swatch_px - 1, y0 + swatch_px - 1)
        _draw_box(draw, box, colour=colour, line_px=line_px, dashed=dashed)
        draw.text((x + 2 * swatch_px + gap_px, middle), text, fill=_INK, font=font, anchor="lm")
        x = end + 3 * gap_px
    if x + draw.textlength(title, font) <= right - gap_px:
        draw.text((right - gap_px, middle), title, fill=_INK, font=font, anchor="rm")
