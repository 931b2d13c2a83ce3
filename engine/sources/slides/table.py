"""What reads whole slides. A new reader is a file in this room and a line here.

Their libraries are imported only when a reader is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from rbc_engine.libraries import Library
from rbc_engine.sources.slides.base import OPENSLIDE, SlideModule

__all__ = ["READERS", "SLIDE_SUFFIXES", "SlideReader"]


@dataclass(frozen=True, kw_only=True)
class SlideReader:
    """Describe one way to read slides.

    name: what it reads, as doctor says it.
    suffixes: names of files that are slides, whatever is in them.
    magic: how its files begin; None if its library has to be asked about any file.
    module: a SlideModule. library: what it needs.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: re.Pattern[bytes] | None
    module: str
    library: Library

    def load(self) -> SlideModule:
        """Import its module."""
        return cast(SlideModule, import_module(self.module))


READERS = (
    SlideReader(
        name="vendors' formats",
        suffixes=(
            ".svs",
            ".ndpi",
            ".mrxs",
            ".scn",
            ".vms",
            ".vmu",
            ".bif",
            ".svslide",
            ".czi",
            ".dcm",
        ),
        magic=None,
        module="rbc_engine.sources.slides.openslide",
        library=OPENSLIDE,
    ),
    SlideReader(
        name="generic and OME TIFF",
        suffixes=(),
        magic=re.compile(rb"II[*+]\0|MM\0[*+]"),
        module="rbc_engine.sources.slides.tiff",
        library=Library(
            name="tifffile",
            module="tifffile",
            distributions=("tifffile",),
            remedy="pip install rbc-engine again",
        ),
    ),
)
"""Asked in this order: a vendor's TIFF is read as the vendor's format."""

SLIDE_SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)
"""Which files of a folder are slides by their name."""
