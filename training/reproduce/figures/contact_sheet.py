"""Arrange pictures in rows and columns, each with lines of text below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

__all__ = ["BLUE", "GREEN", "INK", "RED", "Tile", "contact_sheet"]

Colour = tuple[int, int, int]

GREEN: Colour = (0, 130, 70)
RED: Colour = (200, 30, 30)
BLUE: Colour = (20, 70, 220)
INK: Colour = (30, 30, 30)

_WHITE = (255, 255, 255)
_GAP_PX = 12
_FONT_PX = 13
_LINE_PX = 17


@dataclass(frozen=True, eq=False, kw_only=True)
class Tile:
    """Hold a picture of any size, and lines of text with their colours."""

    picture: Image.Image
    lines: Sequence[tuple[str, Colour]]


def contact_sheet(tiles: Sequence[Tile], *, columns: int, side_px: int) -> Image.Image:
    """Return a sheet in which each picture is stretched to side_px squared; tiles fill one row
    after the other.
    """
    font = ImageFont.load_default(_FONT_PX)
    text_px = max(len(tile.lines) for tile in tiles) * _LINE_PX
    column_px, row_px = side_px + _GAP_PX, side_px + text_px + _GAP_PX
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * column_px + _GAP_PX, rows * row_px + _GAP_PX), _WHITE)
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, top = _GAP_PX + column * column_px, _GAP_PX + row * row_px
        sheet.paste(tile.picture.resize((side_px, side_px)), (left, top))
        for line, (text, colour) in enumerate(tile.lines):
            draw.text((left, top + side_px + line * _LINE_PX), text, fill=colour, font=font)
    return sheet
