"""Which pages of a TIFF make up its one image: a page in colour, or red, green and blue apart.

Files hold thumbnails, labels, masks, focal planes, time points and channels beside it, or in its
place. What is not one image is refused, by what it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.bounded_tiff import bounded_series
from rbc_engine.text import printable

__all__ = ["channel_order", "described_axes", "image_pages"]

_MOST_PAGES = 1024
_REDUCED, _MASK = 1, 4
_RGB_NAMES = (("r", "red"), ("g", "green"), ("b", "blue"))
_GENERIC_NAME = re.compile(r"(?:channel|ch|c)?[\s:_-]*\d*(?:[:_]\d+)?")
_PURE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def image_pages(tiff: Any) -> list[Any]:
    """Return the page of a TIFF's image, or its three of red, green and blue.

    Raises ImageError if there is no image, or not one.
    """
    pages = list(islice(tiff.pages, _MOST_PAGES + 1))
    large = [page for page in pages if not int(page.subfiletype) & (_REDUCED | _MASK)]
    if len(pages) > _MOST_PAGES or not large:
        count = f"more than {_MOST_PAGES}" if large else "no"
        raise ImageError(
            f"holds {count} full-size images, but a TIFF file must hold one; export the field as a "
            "file of its own"
        )
    first = max(large, key=lambda page: (page.imagewidth * page.imagelength, -page.index))
    size = (first.imagewidth, first.imagelength)
    same = [page for page in large if (page.imagewidth, page.imagelength) == size]
    for page in large:
        if page not in same and 2 * max(page.imagewidth / size[0], page.imagelength / size[1]) > 1:
            raise ImageError(
                f"holds images of {size[0]}x{size[1]} and {page.imagewidth}x{page.imagelength} px, "
                "but a TIFF file must hold one; export each field as a file of its own"
            )
    axes = described_axes(tiff, first, count=len(same))
    if not axes and len(same) == 1:
        return same
    if set(axes) == {"C"} and axes["C"] == len(same) == 3 and all(map(_is_grey, same)):
        return [same[index] for index in channel_order(tiff)]
    raise ImageError(_why_not_one(axes, same))


def described_axes(tiff: Any, page: Any, *, count: int) -> dict[str, int]:
    """Return the lengths of what the file says its images differ by: C, Z, T, or others.

    page: one of them; count: how many pages there are. Empty if there is one image.
    """
    imagej = tiff.imagej_metadata if tiff.is_imagej else None
    if imagej:
        named = {"C": "channels", "Z": "slices", "T": "frames"}
        found = {axis: _number(imagej.get(name)) for axis, name in named.items()}
        stack = _number(imagej.get("images"))
        found = {axis: length for axis, length in found.items() if length > 1}
        if stack > 1 and not found:
            found = {"Z": stack}
        if found == {"C": 3} and count == 1 and page.samplesperpixel == 3:
            return {}  # a colour image, as some programs describe it
        return found
    if count == 1:
        return {}
    for series in bounded_series(tiff):
        level = series.levels[0]
        if page.index in {found.index for found in level.pages if found is not None}:
            shape = dict(zip(level.axes, level.shape, strict=True))
            return {axis: n for axis, n in shape.items() if axis not in "YXS" and n > 1} or {
                "P": count
            }
    return {"Q": count}


def channel_order(tiff: Any) -> tuple[int, int, int]:
    """Return which of three channels is red, green and blue, by their names or colours.

    Raises ImageError if they are others.
    """
    names, colours = _channels(tiff)
    by_name = [
        next((i for i, known in enumerate(_RGB_NAMES) if name.strip().lower() in known), None)
        for name in names
    ]
    by_colour = [_PURE.index(colour) if colour in _PURE else None for colour in colours]
    for found in (by_name, by_colour):
        if sorted(index for index in found if index is not None) == [0, 1, 2] and len(found) == 3:
            return (found.index(0), found.index(1), found.index(2))
    told = [name for name in names if not _GENERIC_NAME.fullmatch(name.strip().lower())]
    if told:
        shown = ", ".join(printable(name)[:20] for name in told[:4])
        raise ImageError(
            f"channels {shown}, not red, green and blue; export a picture in colour, as it is seen "
            "through the eyepiece"
        )
    return (0, 1, 2)


def _channels(tiff: Any) -> tuple[list[str], list[tuple[int, ...]]]:
    names: list[str] = []
    colours: list[tuple[int, ...]] = []
    if tiff.is_ome:
        elements = re.findall(r"<(?:\w+:)?Channel\b[^>]*>", str(tiff.ome_metadata or "")[: 1 << 22])
        for element in elements[:3]:
            name = re.search(r'\bName="([^"]{0,80})"', element)
            colour = re.search(r'\bColor="(-?\d{1,10})"', element)
            names.append(name[1] if name else "")
            value = int(colour[1]) & 0xFFFFFFFF if colour else 0  # RGBA
            colours.append((value >> 24, value >> 16 & 255, value >> 8 & 255))
        return names, colours
    metadata = tiff.imagej_metadata or {}
    labels = metadata.get("Labels")
    names = [str(label) for label in labels[:3]] if isinstance(labels, list | tuple) else []
    luts = metadata.get("LUTs")
    for lut in luts[:3] if isinstance(luts, list | tuple) else ():
        brightest = np.asarray(lut).reshape(3, -1)[:, -1]
        colours.append(tuple(int(level) for level in brightest))
    return names, colours


def _is_grey(page: Any) -> bool:
    return page.samplesperpixel == 1 and int(page.photometric) in (0, 1)


def _why_not_one(axes: dict[str, int], pages: Sequence[Any]) -> str:
    count = len(pages)
    if axes.get("Z", 1) > 1:
        return (
            f"a stack of {axes['Z']} focal planes of one field, whose cells would count "
            f"{axes['Z']} times; export the sharpest plane, or one image of extended focus"
        )
    if axes.get("T", 1) > 1:
        return f"{axes['T']} time points of one field; export one of them"
    if axes.get("C", 1) > 1:
        return (
            f"{axes['C']} channels, which do not make red, green and blue; export a picture in "
            "colour, as it is seen through the eyepiece"
        )
    kind = "grey" if all(map(_is_grey, pages)) else "colour"
    channels = " or, as channels of one, in colour" if kind == "grey" else ""
    return (
        f"holds {count} full-size images in {kind}, and does not say what they are; if they are "
        f"fields, export each as a file of its own; if they are one field, export it once: the "
        f"sharpest plane{channels}"
    )


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 1e6 else 1
