"""Interpolate colours from a Bayer mosaic bilinearly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import UInt8

__all__ = ["BAYER_PATTERNS", "demosaic"]

BAYER_PATTERNS = ("rggb", "bggr", "grbg", "gbrg")
"""Colours of the top left two by two pixels, row by row."""


def demosaic(mosaic: UInt8, pattern: str) -> UInt8:
    """Interpolate each missing colour of a pixel as the rounded mean of its nearest neighbours of
    that colour: two or four.

    Beyond the edge the mosaic continues as in a mirror, so that colours stay in phase.

    mosaic: uint8 [H, W], H and W even and at least 2. pattern: one of BAYER_PATTERNS.

    Returns uint8 [H, W, 3], RGB, a new array.
    """
    height, width = mosaic.shape
    rgb = np.empty((height, width, 3), np.uint8)
    padded = np.pad(mosaic, 1, mode="reflect").astype(np.uint16)

    def at(row: int, column: int, dy: int, dx: int) -> npt.NDArray[np.uint16]:
        """Return the neighbours at (dy, dx) of the pixels of one phase."""
        top, left = 1 + row + dy, 1 + column + dx
        return padded[top : top + height - 1 : 2, left : left + width - 1 : 2]

    for row in (0, 1):
        for column in (0, 1):
            here = (slice(row, None, 2), slice(column, None, 2))

            def mean(
                *offsets: tuple[int, int], row: int = row, column: int = column
            ) -> npt.NDArray[np.uint16]:
                total = sum(
                    (at(row, column, *o) for o in offsets[1:]), at(row, column, *offsets[0])
                )
                return np.asarray((total + len(offsets) // 2) // len(offsets), np.uint16)

            own = pattern[2 * row + column]
            beside = mean((0, -1), (0, 1))
            above = mean((-1, 0), (1, 0))
            if own == "g":
                red_beside = "r" in pattern[2 * row : 2 * row + 2]
                red, blue = (beside, above) if red_beside else (above, beside)
                rgb[here] = np.stack([red, at(row, column, 0, 0), blue], axis=2)
            else:
                green = mean((0, -1), (0, 1), (-1, 0), (1, 0))
                other = mean((-1, -1), (-1, 1), (1, -1), (1, 1))
                mine = at(row, column, 0, 0)
                red, blue = (mine, other) if own == "r" else (other, mine)
                rgb[here] = np.stack([red, green, blue], axis=2)
    return rgb
