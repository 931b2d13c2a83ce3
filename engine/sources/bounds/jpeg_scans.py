"""Bound the work that a JPEG asks for: its scans, each of which may go over the whole picture."""

from __future__ import annotations

import struct

from rbc_engine.errors import ImageError

__all__ = ["check_scans"]

_MOST_SCANS = 100
_MOST_SCANNED_PX = 2_000_000_000
_SOS, _EOI = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x00, 0x01, 0xFF, 0xD8, *range(0xD0, 0xD8)})


def check_scans(data: bytes) -> None:
    """Check a JPEG before it is decoded. Cameras and programs write 1 to 12 scans.

    Raises ImageError if it has more than 100, or if they go over more than two billion pixels in
    all.
    """
    likely = data.count(b"\xff\xda")  # with those of a thumbnail
    if likely <= 1:
        return
    scans, pixels = _count(data)
    if scans > _MOST_SCANS or scans * pixels > _MOST_SCANNED_PX:
        raise ImageError(
            f"a JPEG of {scans} scans over {pixels} pixels, more than any program writes; export it again"
        )


def _count(data: bytes) -> tuple[int, int]:
    """Return how many scans a JPEG has, and the pixels of its largest frame header."""
    scans = pixels = 0
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return scans, pixels
        marker = data[position + 1]
        if marker in _ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _EOI:
            return scans, pixels
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _FRAMES and position + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, position + 5)
            pixels = max(pixels, height * width)
        scans += marker == _SOS
        position += 2 + max(length, 2)
