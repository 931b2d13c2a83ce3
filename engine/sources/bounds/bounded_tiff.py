"""Open TIFFs with tifffile so that what they claim costs nothing: other files that they name are not
read, and what their metadata count is checked before it is believed.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from rbc_engine.errors import ImageError
from rbc_engine.text import printable

__all__ = ["bounded_series", "open_tiff"]

_MOST_XML = 8 << 20
_MOST_PLANES = 100_000
_MOST_ELEMENTS = 200_000
_MOST_SIDE = 1 << 22
_DECLARATION = re.compile(r"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_PLANES = ("SizeZ", "SizeC", "SizeT")
_SIDES = ("SizeX", "SizeY")
_COUNTS = (
    *_PLANES,
    "PlaneCount",
    "NumPlanes",
    "IFD",
    "FirstZ",
    "FirstC",
    "FirstT",
    "SamplesPerPixel",
)


def open_tiff(source: Path | io.BytesIO) -> tifffile.TiffFile:
    """Open a TIFF, which never reads another file, whatever its metadata name."""
    return tifffile.TiffFile(source, _multifile=False)


def bounded_series(tiff: Any) -> list[Any]:
    """Return a TIFF's series, which tifffile makes from its metadata.

    Raises ImageError if these are too large, count more than 100,000 planes, define entities, or are
    spread over other files.
    """
    if tiff.is_mmstack or tiff.is_ndtiff:
        raise ImageError("a stack in several files; export the image as a file of its own")
    description = str(tiff.pages.first.description) if len(tiff.pages) else ""
    if len(description) > _MOST_XML:
        raise ImageError(
            f"a description of {len(description)} characters, more than {_MOST_XML}; export it again"
        )
    if _DECLARATION.search(description):
        raise ImageError("metadata that define entities; export it again")
    if tiff.is_ome:
        _check_ome(description)
    series: list[Any] = list(tiff.series)
    return series


def _check_ome(xml: str) -> None:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ImageError(
            f"damaged OME metadata ({printable(str(error)):.80}); export it again"
        ) from error
    total = 0
    for number, element in enumerate(root.iter()):
        tag = element.tag.rpartition("}")[2]
        if number > _MOST_ELEMENTS or tag.startswith("Modulo"):
            raise ImageError(
                "OME metadata of more than one image; export one plane as a file of its own"
            )
        for name in (*_COUNTS, *_SIDES):
            if name in element.attrib:
                _number(name, element.attrib[name])
        if tag == "Pixels":
            total += math.prod(_number(name, element.attrib.get(name, "1")) for name in _PLANES)
        if tag == "TiffData":
            total += max(_number(name, element.attrib.get(name, "0")) for name in _COUNTS)
    if total > _MOST_PLANES:
        raise ImageError(
            f"OME metadata that count {total} planes, more than {_MOST_PLANES}; export one plane as "
            "a file of its own"
        )


def _number(name: str, text: str) -> int:
    most = _MOST_SIDE if name in _SIDES else _MOST_PLANES
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text) or int(text) > most:
        raise ImageError(
            f"OME metadata with {name} {printable(text)!r:.40}, not within 0..{most}; export it again"
        )
    return int(text)
