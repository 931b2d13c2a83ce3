"""DICOM whole slides, written for the tests: a file a level, in JPEG tiles."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

_LONG = (b"OB", b"SQ")


def element(group: int, number: int, vr: str, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    data += (b"\0" if vr in ("UI", "OB") else b" ") * (len(data) % 2)
    head = struct.pack("<HH", group, number) + vr.encode()
    if vr.encode() in _LONG:
        return head + struct.pack("<HI", 0, len(data)) + data
    return head + struct.pack("<H", len(data)) + data


def sequence(group: int, number: int, item: bytes) -> bytes:
    return element(group, number, "SQ", _item(item))


def _item(data: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


def _short(group: int, number: int, value: int) -> bytes:
    return element(group, number, "US", struct.pack("<H", value))


def _long(group: int, number: int, value: int) -> bytes:
    return element(group, number, "UL", struct.pack("<I", value))


def write_level(
    path: Path,
    pixels: np.ndarray,
    *,
    um: float,
    series: str = "2.25.7",
    number: int = 1,
    kind: str = "ORIGINAL\\PRIMARY\\VOLUME\\NONE",
    tile: int = 64,
) -> None:
    height, width = pixels.shape[:2]
    frames = []
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            part = np.zeros((tile, tile, 3), np.uint8)
            seen = pixels[y : y + tile, x : x + tile]
            part[: seen.shape[0], : seen.shape[1]] = seen
            file = io.BytesIO()
            Image.fromarray(part).save(file, "JPEG", quality=95, subsampling=0)
            frames.append(file.getvalue() + b"\0" * (len(file.getvalue()) % 2))
    kinds, instance = "1.2.840.10008.5.1.4.1.1.77.1.6", f"{series}.{number}"
    meta = b"".join(
        (
            element(2, 1, "OB", b"\0\1"),
            element(2, 2, "UI", kinds),
            element(2, 3, "UI", instance),
            element(2, 0x10, "UI", "1.2.840.10008.1.2.4.50"),
            element(2, 0x12, "UI", "2.25.1"),
        )
    )
    spacing = element(0x28, 0x30, "DS", f"{um / 1000:.8f}\\{um / 1000:.8f}")
    body = (
        element(8, 8, "CS", kind),
        element(8, 0x16, "UI", kinds),
        element(8, 0x18, "UI", instance),
        element(8, 0x60, "CS", "SM"),
        element(0x20, 0xD, "UI", "2.25.5"),
        element(0x20, 0xE, "UI", series),
        element(0x20, 0x13, "IS", str(number)),
        element(0x20, 0x52, "UI", "2.25.6"),
        element(0x20, 0x9311, "CS", "TILED_FULL"),
        _short(0x28, 2, 3),
        element(0x28, 4, "CS", "YBR_FULL_422"),
        _short(0x28, 6, 0),
        element(0x28, 8, "IS", str(len(frames))),
        *(_short(0x28, n, v) for n, v in ((0x10, tile), (0x11, tile), (0x100, 8), (0x101, 8))),
        *(_short(0x28, n, v) for n, v in ((0x102, 7), (0x103, 0))),
        element(0x28, 0x2110, "CS", "01"),
        _long(0x48, 6, width),
        _long(0x48, 7, height),
        sequence(0x48, 0x105, element(0x48, 0x106, "SH", "1")),
        sequence(0x5200, 0x9229, sequence(0x28, 0x9110, spacing)),
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF),
        _item(b""),
        *map(_item, frames),
        struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    )
    path.write_bytes(bytes(128) + b"DICM" + _long(2, 0, len(meta)) + meta + b"".join(body))
