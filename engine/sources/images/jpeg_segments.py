"""Walk through a JPEG's markers: what its header says, where its coded data lie, what is spare.

ITU-T T.81, annex B. Decoders differ in how they treat bytes that belong nowhere; here they are
found, so that a file is either put in order and decoded strictly, or refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from rbc_engine.errors import ImageError

__all__ = ["JpegParts", "jpeg_parts"]

_EOI, _SOS, _DRI, _APP0, _EXIF = 0xD9, 0xDA, 0xDD, 0xE0, 0xE1
_RST0, _RST7 = 0xD0, 0xD7
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_ALONE = frozenset({0x01, 0xD8, *range(_RST0, _RST7 + 1)})
_MOST_SEGMENTS = 100_000


@dataclass(eq=False, kw_only=True)
class JpegParts:
    """Hold the parts of a JPEG up to the end of its first image.

    width, height, components: of its frame header. pieces: its segments in order, without what is
    spare between them, without the end marker; coded data are pieces of their own, whose numbers
    are in `coded`. exif, jfif: segments, empty without one. whole_scans: whether the scans bring
    every bit of every coefficient.
    """

    width: int = 0
    height: int = 0
    components: int = 0
    pieces: list[bytes] = field(default_factory=list)
    coded: list[int] = field(default_factory=list)
    exif: bytes = b""
    jfif: bytes = b""
    whole_scans: bool = True

    def joined(self, *, after_coded: bytes = b"", strip: bool = False) -> bytes:
        """Return a JPEG of the parts alone.

        after_coded: put behind every piece of coded data. strip: whether zeros at their ends go.
        """
        coded = set(self.coded)
        pieces = [
            (piece.rstrip(b"\0") if strip else piece) + after_coded if index in coded else piece
            for index, piece in enumerate(self.pieces)
        ]
        return b"".join((b"\xff\xd8", *pieces, bytes((0xFF, _EOI))))


def jpeg_parts(data: bytes) -> JpegParts:
    """Walk through a JPEG that begins with its first marker. Its end marker may be missing.

    Raises ImageError if a segment is cut short, if markers stand where they must not, or if there
    is no frame or no coded data.
    """
    parts = JpegParts()
    scans = _Scans()
    position = 2
    for _ in range(_MOST_SEGMENTS):
        position = data.find(b"\xff", position)
        while 0 <= position < len(data) - 1 and data[position + 1] in (0x00, 0xFF):
            position = data.find(b"\xff", position + 1)
        if position < 0 or position >= len(data) - 1:
            break  # no end marker
        marker = data[position + 1]
        if marker == _EOI:
            break
        if marker in _ALONE:
            raise _damaged(f"marker {marker:#x} outside coded data")
        body = data[position + 4 : position + 2 + _length(data, position)]
        parts.pieces.append(data[position : position + 4 + len(body)])
        position += 4 + len(body)
        if marker in _FRAMES:
            _take_frame(parts, body)
            scans.begin(body, progressive=marker in _PROGRESSIVE)
        elif marker == _DRI and len(body) >= 2:
            scans.interval = struct.unpack_from(">H", body)[0]
        elif marker == _EXIF and body.startswith(b"Exif\0\0") and not parts.exif:
            parts.exif = body
        elif marker == _APP0 and body.startswith(b"JFIF\0") and not parts.jfif:
            parts.jfif = body
        elif marker == _SOS:
            if not parts.components:
                raise _damaged("coded data before the frame header")
            expected = scans.add(body)
            position = _take_coded(parts, data, position, restarts=expected)
    else:
        raise _damaged(f"more than {_MOST_SEGMENTS} segments")
    if not parts.coded:
        raise _damaged("no coded data")
    parts.whole_scans = scans.whole()
    return parts


class _Scans:
    """Count what the scans of a frame bring."""

    def __init__(self) -> None:
        self.interval = 0
        self._progressive = False
        self._hw = (0, 0)
        self._sampling: dict[int, tuple[int, int]] = {}
        self._missing: dict[int, list[int]] = {}

    def begin(self, body: bytes, *, progressive: bool) -> None:
        _, height, width, count = struct.unpack_from(">BHHB", body)
        self._hw, self._progressive = (height, width), progressive
        for index in range(count):
            number, sampling, _ = body[6 + 3 * index : 9 + 3 * index]
            across, down = sampling >> 4, sampling & 15
            if not (1 <= across <= 4 and 1 <= down <= 4) or number in self._sampling:
                raise _damaged(f"sampling {across}x{down} of component {number}")
            self._sampling[number] = (across, down)
            self._missing[number] = [255] * 64  # bits that have not come

    def add(self, body: bytes) -> int | None:
        """Take in the header of a scan; return how many restart markers it must have, if any."""
        count = body[0] if body else 0
        if not 1 <= count <= 4 or len(body) < 4 + 2 * count:
            raise _damaged("a scan's header is cut short")
        numbers = [body[1 + 2 * index] for index in range(count)]
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        for number in numbers:
            if number not in self._missing:
                raise _damaged(f"a scan of component {number}, which there is not")
            if self._progressive:
                for place in range(first, min(last, 63) + 1):
                    self._missing[number][place] = bits & 15
            else:
                self._missing[number] = [0] * 64
        if not self.interval:
            return 0
        return _ceil(self._units(numbers), self.interval) - 1

    def whole(self) -> bool:
        return not any(any(bits) for bits in self._missing.values())

    def _units(self, numbers: list[int]) -> int:
        """Units of a scan that restart markers count (T.81, A.2)."""
        most_across = max(across for across, _ in self._sampling.values())
        most_down = max(down for _, down in self._sampling.values())
        height, width = self._hw
        if len(numbers) > 1:
            return _ceil(width, 8 * most_across) * _ceil(height, 8 * most_down)
        across, down = self._sampling[numbers[0]]
        return _ceil(_ceil(width * across, most_across), 8) * _ceil(
            _ceil(height * down, most_down), 8
        )


def _ceil(count: int, each: int) -> int:
    return -(-count // each)


def _take_frame(parts: JpegParts, body: bytes) -> None:
    if parts.components:
        raise _damaged("two frame headers")
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
        raise _damaged("its frame header is cut short")
    _, parts.height, parts.width, parts.components = struct.unpack_from(">BHHB", body)


def _take_coded(parts: JpegParts, data: bytes, position: int, *, restarts: int | None) -> int:
    """Take coded data with its restart markers; return where the next marker is, or the end."""
    count = 0
    for piece, following in _coded_pieces(data, position):
        parts.coded.append(len(parts.pieces))
        parts.pieces.append(piece)
        position = following
        marker = data[following + 1] if following < len(data) else _EOI
        if not _RST0 <= marker <= _RST7:
            break
        if marker != _RST0 + count % 8:
            raise _damaged(f"restart marker {marker - _RST0} instead of {count % 8}")
        parts.pieces.append(data[following : following + 2])
        count += 1
    if restarts is not None and count != restarts:
        raise _damaged(f"{count} restart markers instead of {restarts}")
    return position


def _coded_pieces(data: bytes, position: int) -> Iterator[tuple[bytes, int]]:
    """Coded data up to each marker, and where that marker is; the file's length without one."""
    while True:
        begin = position
        while True:
            position = data.find(b"\xff", position)
            if position < 0 or position == len(data) - 1:
                end = len(data) if position < 0 else position
                yield data[begin:end], len(data)
                return
            following = data[position + 1]
            if following == 0xFF:  # fill
                position += 1
            elif following == 0x00:
                position += 2
            else:
                break
        yield data[begin:position].rstrip(b"\xff"), position
        position += 2


def _length(data: bytes, position: int) -> int:
    if position + 4 > len(data):
        raise _damaged("cut short")
    (length,) = struct.unpack_from(">H", data, position + 2)
    if length < 2 or position + 2 + length > len(data):
        raise _damaged(f"segment {data[position + 1]:#x} is cut short")
    return int(length)


def _damaged(why: str) -> ImageError:
    return ImageError(f"damaged JPEG ({why}); copy or export it again")
