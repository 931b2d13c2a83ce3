"""A frame with its regions marked: a box each, what it holds, and a line that says what the marks mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rbc_engine.pack import Pack
from rbc_engine.types import Float32, RegionFlag, Regions, UInt8

__all__ = ["OverlayStyle", "draw_overlay"]

_NORMAL = (0, 114, 178)
_ABNORMAL = (213, 94, 0)
"""Blue and vermilion of Okabe and Ito's palette, which people with any colour vision tell apart."""
_WHITE = (255, 255, 255)
_INK = (30, 30, 30)

_SMALLEST_FONT_PX = 11
_PX_PER_LINE_WIDTH = 400
_PX_PER_FONT_PX = 64
_LARGEST_LABEL_TO_BOX = 1.7
"""A label wider than this times its box is shortened or left out: it would lie on the neighbours."""


@dataclass(frozen=True, kw_only=True)
class OverlayStyle:
    """What a picture needs to know of the pack.

    types: names to show, in the pack's order.
    title: the pack, and where it draws the line.
    """

    types: tuple[str, ...]
    title: str

    @classmethod
    def of(cls, pack: Pack) -> OverlayStyle:
        threshold = pack.manifest.caller.threshold
        return cls(
            types=tuple(name.replace("_", " ") for name in pack.types),
            title=f"{pack.name} {pack.manifest.version}, abnormal at p >= {threshold:.2f}",
        )


def draw_overlay(
    pixels: UInt8, regions: Regions, *, style: OverlayStyle, saturated: bool = False
) -> Image.Image:
    """The frame at its own size, with a legend below it, so that boxes keep their pixel coordinates.

    pixels: uint8 [H, W, 3], RGB.
    saturated: the legend says that regions may be missing.
    """
    height, width = pixels.shape[:2]
    line_px = max(1, round(min(height, width) / _PX_PER_LINE_WIDTH))
    font_px = max(_SMALLEST_FONT_PX, round(min(height, width) / _PX_PER_FONT_PX))
    font = ImageFont.load_default(font_px)
    legend_px = 2 * font_px
    picture = Image.new("RGB", (width, height + legend_px), _WHITE)
    picture.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(picture)

    # Abnormal ones last, so that they lie on top.
    for index in np.argsort(regions.abnormal, kind="stable"):
        _draw_box(
            draw,
            _inside(regions.boxes[index], width, height, line_px),
            colour=_ABNORMAL if regions.abnormal[index] else _NORMAL,
            line_px=line_px,
            dashed=bool(regions.flags[index] & RegionFlag.BORDER),
        )
    _draw_labels(draw, regions, style.types, font=font, line_px=line_px, size=(width, height))
    _draw_legend(draw, regions, style.title, saturated, font=font, line_px=line_px, top=height)
    return picture
