"""Tell which DICOM files of a folder are one slide: its levels are files of one series.

OpenSlide reads them all, given one. Only the beginning of a file is looked at, in the one encoding
that slides have (explicit VR, little endian).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

__all__ = ["DicomHeader", "dicom_header", "parse_header"]

_MOST_BYTES = 1 << 16
_PREAMBLE = 128
_IMAGE_TYPE, _SERIES = (0x0008, 0x0008), (0x0020, 0x000E)
_LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT"})
_UNDEFINED = 0xFFFFFFFF


class DicomHeader(NamedTuple):
    """Hold a file's series, and whether it is a level of a slide, not its label or overview."""

    series: str
    is_level: bool


def dicom_header(path: Path) -> DicomHeader | None:
    """Return what a file says; None if it is no DICOM file, or cannot be read so far."""
    try:
        with path.open("rb") as file:
            return parse_header(file.read(_MOST_BYTES))
    except OSError:  # comes up when the slide is opened
        return None


def parse_header(data: bytes) -> DicomHeader | None:
    """Return what the beginning of a file says; None if it is no DICOM file, or cut short."""
    if data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    kind, position = "", _PREAMBLE + 4
    while position + 8 <= len(data):
        group, number, vr = struct.unpack_from("<HH2s", data, position)
        if vr in _LONG:
            if position + 12 > len(data):
                return None
            (length,) = struct.unpack_from("<I", data, position + 8)
            position += 12
        else:
            (length,) = struct.unpack_from("<H", data, position + 6)
            position += 8
        tag = (group, number)
        if length == _UNDEFINED or tag > _SERIES:
            return None
        value = data[position : position + length].decode("ascii", "replace").strip("\0 ")
        if tag == _IMAGE_TYPE:
            kind = value
        elif tag == _SERIES:
            return DicomHeader(value, "VOLUME" in kind.split("\\"))
        position += length
    return None
