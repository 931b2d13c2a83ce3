"""The kinds of image files. A new one is a file in this room and a line here.

Its readers' libraries are imported only when they are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from rbc_engine.libraries import Library
from rbc_engine.sources.images.base import Picture

__all__ = ["IMAGE_SUFFIXES", "READERS", "ImageReader", "reader_of"]


@dataclass(frozen=True, kw_only=True)
class ImageReader:
    """Describe one kind of image file.

    name: as messages call it. suffixes: of the files in a folder that count as such images.
    magic: how one begins. That alone decides what a file is, never its name.
    module, function: what decodes the bytes of a file: takes bytes, gives a Picture with sides
        MIN_SIDE_PX..MAX_SIDE_PX, and raises ImageError, or whatever its library raises.
    library: what it needs.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: re.Pattern[bytes]
    module: str
    function: str
    library: Library

    def load(self) -> Callable[[bytes], Picture]:
        """Import what decodes."""
        decode: Callable[[bytes], Picture] = getattr(import_module(self.module), self.function)
        return decode


def _library(name: str, module: str) -> Library:
    """Describe one that is installed with rbc-engine."""
    return Library(
        name=name, module=module, distributions=(name,), remedy="pip install rbc-engine again"
    )


_SIMPLEJPEG = _library("simplejpeg", "simplejpeg")
_PILLOW = _library("pillow", "PIL")
_TIFFFILE = _library("tifffile", "tifffile")

READERS = (
    ImageReader(
        name="JPEG",
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
        magic=re.compile(rb"\xff\xd8\xff"),
        module="rbc_engine.sources.images.jpeg",
        function="decode_jpeg",
        library=_SIMPLEJPEG,
    ),
    ImageReader(
        name="PNG",
        suffixes=(".png",),
        magic=re.compile(rb"\x89PNG\r\n\x1a\n"),
        module="rbc_engine.sources.images.png",
        function="decode_png",
        library=_PILLOW,
    ),
    ImageReader(
        name="TIFF",
        suffixes=(".tif", ".tiff"),
        magic=re.compile(rb"II[*+]\0|MM\0[*+]"),
        module="rbc_engine.sources.images.tiff.tiff_image",
        function="decode_tiff",
        library=_TIFFFILE,
    ),
    ImageReader(
        name="BMP",
        suffixes=(".bmp", ".dib"),
        magic=re.compile(rb"BM"),
        module="rbc_engine.sources.images.pillow",
        function="decode_bmp",
        library=_PILLOW,
    ),
    ImageReader(
        name="WebP",
        suffixes=(".webp",),
        magic=re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
        module="rbc_engine.sources.images.pillow",
        function="decode_webp",
        library=_PILLOW,
    ),
    ImageReader(
        name="HEIC",
        suffixes=(".heic", ".heif", ".hif"),
        magic=re.compile(rb".{4}ftyp(?:heic|heix|heim|heis|mif1)", re.DOTALL),
        module="rbc_engine.sources.images.native.heif",
        function="decode_heif",
        library=Library(
            name="pillow-heif",
            module="pillow_heif",
            distributions=("pillow-heif",),
            remedy="pip install 'rbc-engine[phones]'",
        ),
    ),
)

IMAGE_SUFFIXES = tuple(
    suffix for reader in READERS if reader.library.missing() is None for suffix in reader.suffixes
)
"""Which files of a folder count as images. A file that is itself an INPUT may have any name."""


def reader_of(data: bytes) -> ImageReader | None:
    """Find the reader of a file by its first bytes; None if there is none."""
    return next((reader for reader in READERS if reader.magic.match(data)), None)
