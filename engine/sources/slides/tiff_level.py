"""Read one level of a TIFF slide as it is stored: check what is supported, and unpack its
segments.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.jpeg_scans import check_scans
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8

__all__ = ["TiffLevel"]

_MAX_SEGMENT_BYTES = 64 * 2**20

_NONE, _JPEG = 1, 7
_COMPRESSIONS = {
    _NONE: "none",
    5: "LZW",
    _JPEG: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
}
"""Those whose decoders never write more than a segment holds; for JPEG the header is checked
first.
"""

_INVERTED, _GRAY, _RGB, _YCBCR = 0, 1, 2, 6
_SAMPLES = {_INVERTED: (1, 2), _GRAY: (1, 2), _RGB: (3, 4), _YCBCR: (3,)}
_ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False, kw_only=True)
class TiffLevel:
    """Describe one level as it is stored: tiles or strips, its segments.

    samples: 1 or 3, of a pixel as it is read; stored: as it is stored, with alpha. planes: 1, or 3
    if each colour is stored separately.
    segment_hw: height and width of a tile, or of a strip. grid: segments along y and x.
    offsets, byte_counts: of each segment in the file.
    rows_are_plain: uncompressed strips, whose rows can be read one by one.
    decode: tifffile's decoder of a segment. jpeg: tables stored elsewhere, for it; empty without
    JPEG.
    """

    width: int
    height: int
    samples: int
    planes: int
    inverted: bool
    segment_hw: tuple[int, int]
    grid: tuple[int, int]
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]
    rows_are_plain: bool
    stored: int
    decode: Callable[..., Any]
    jpeg: dict[str, Any]

    @classmethod
    def of(cls, page: Any, file_bytes: int) -> TiffLevel:
        """Read the description; raise ImageError for anything unsupported or incomplete."""
        width, height = int(page.imagewidth), int(page.imagelength)
        stored = int(page.samplesperpixel)
        if page.dtype != np.uint8 or page.bitspersample != 8:
            raise ImageError(
                f"{page.bitspersample}-bit samples; export it with unsigned samples of 8 bits"
            )
        if page.imagedepth != 1 or stored not in _SAMPLES.get(int(page.photometric), ()):
            photometric = getattr(page.photometric, "name", page.photometric)
            raise ImageError(
                f"photometric {photometric}, {stored} samples per pixel; export it as an RGB or "
                "grayscale slide"
            )
        if int(page.compression) not in _COMPRESSIONS:
            compression = getattr(page.compression, "name", page.compression)
            readable = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
            raise ImageError(f"compression {compression}; export it with another ({readable})")
        if int(page.photometric) == _YCBCR and int(page.compression) != _JPEG:
            raise ImageError("YCbCr without JPEG; export it as RGB")
        if page.tags.valueof(_ORIENTATION, 1) != 1:
            raise ImageError("turned or mirrored by its Orientation tag; export it upright")
        segment_hw = (
            (int(page.tilelength), int(page.tilewidth))
            if page.is_tiled
            else (min(int(page.rowsperstrip), height), width)
        )
        separate = int(page.planarconfig) == 2 and stored > 1
        planes = (3 if stored >= 3 else 1) if separate else 1
        plain = not page.is_tiled and int(page.compression) == _NONE and not separate
        segment_bytes = math.prod(segment_hw) * (1 if separate else stored)
        if min(segment_hw) < 1 or (segment_bytes > _MAX_SEGMENT_BYTES and not plain):
            kind = "tiles" if page.is_tiled else "strips"
            raise ImageError(
                f"{kind} of {segment_hw[1]}x{segment_hw[0]} px, more than "
                f"{_MAX_SEGMENT_BYTES >> 20} MiB each; export it with tiles of 256 to 1024 px"
            )
        grid = (-(-height // segment_hw[0]), -(-width // segment_hw[1]))
        offsets, byte_counts = tuple(page.dataoffsets), tuple(page.databytecounts)
        segments = list(zip(offsets, byte_counts, strict=True))
        whole = all(start > 0 and 0 < size <= file_bytes - start for start, size in segments)
        if len(segments) != math.prod(grid) * (stored if separate else 1) or not whole:
            raise ImageError("damaged TIFF (pixel data are missing); copy or export it again")
        if plain:
            rows = [min(segment_hw[0], height - row * segment_hw[0]) for row in range(grid[0])]
            if any(size < n * width * stored for n, size in zip(rows, byte_counts, strict=True)):
                raise ImageError("damaged TIFF (strips are too short); copy or export it again")
        jpeg = {}
        if int(page.compression) == _JPEG:
            jpeg = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        return cls(
            width=width,
            height=height,
            samples=3 if stored >= 3 else 1,
            planes=planes,
            inverted=int(page.photometric) == _INVERTED,
            segment_hw=segment_hw,
            grid=grid,
            offsets=offsets,
            byte_counts=byte_counts,
            rows_are_plain=plain,
            stored=stored,
            decode=page.decode,  # while the file is open
            jpeg=jpeg,
        )

    def shown_hw(self, row: int, column: int) -> tuple[int, int]:
        """Return height and width of the visible part of a segment; the last ones may hold more."""
        height, width = self.segment_hw
        return (
            min(height, self.height - row * height),
            min(width, self.width - column * width),
        )

    def unpack(self, data: bytes, index: int, *, needed_hw: tuple[int, int], where: str) -> UInt8:
        """Return uint8 [h, w, samples], a segment of at least the size that is needed.

        where: its name in errors. Raises ImageError if it is damaged.
        """
        if self.jpeg and _jpeg_bytes(data) > _MAX_SEGMENT_BYTES:
            raise ImageError(
                f"damaged TIFF ({where}: a JPEG larger than its tile); export it again"
            )
        if self.jpeg:
            check_scans(data)
        try:
            decoded, _, _ = self.decode(data, index, **self.jpeg)
            segment: UInt8 = np.ascontiguousarray(decoded[0])
        except MemoryError:
            raise
        except Exception as error:
            reason = printable(" ".join(str(error).split()) or type(error).__name__)
            raise ImageError(
                f"damaged TIFF ({where}: {reason:.200}); copy or export it again"
            ) from error
        if segment.shape[0] < needed_hw[0] or segment.shape[1] < needed_hw[1]:
            raise ImageError(f"damaged TIFF ({where} is cut short); copy or export it again")
        return segment


def _jpeg_bytes(data: bytes) -> int:
    """Return the unpacked size of a JPEG in bytes, by its frame header; more than any limit if it
    has none.
    """
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        (size,) = struct.unpack_from(">H", data, position + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, samples = struct.unpack_from(">HHB", data, position + 5)
            return (
                max(int(height) * int(width) * int(samples), 1)
                if height
                else _MAX_SEGMENT_BYTES + 1
            )
        position += 2 + size
    return _MAX_SEGMENT_BYTES + 1
