"""Bytes of an image file to RGB pixels, or one line that says why not.

What a file is, its first bytes decide, never its name: see rbc_engine.sources.images.table. Limits
are checked in the header, before pixels are decoded.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.regular_file import read_whole
from rbc_engine.sources.images.base import Picture
from rbc_engine.sources.images.table import READERS, reader_of
from rbc_engine.sources.unread import unread_kind
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import FileStamp

__all__ = [
    "MAX_FILE_BYTES",
    "decode_image",
    "decode_picture",
    "read_bytes",
    "read_image",
    "read_picture",
    "read_stamped",
]

MAX_FILE_BYTES = 512 * 2**20

_MISSING = {reader.name: reader.library.missing() for reader in READERS}

# Now, and not in the threads that decode.
for _reader in READERS:
    with suppress(ImportError):
        _reader.load()


def read_image(path: Path, *, name: str) -> UInt8:
    """Read and decode one file, as decode_image does.

    Raises ImageError also if the file cannot be read.
    """
    return read_picture(path, name=name).pixels


def read_picture(path: Path, *, name: str) -> Picture:
    """Read and decode one file, as decode_picture does.

    Raises ImageError also if it cannot be read.
    """
    return decode_picture(read_bytes(path, name=name), name=name)


def read_bytes(path: Path, *, name: str) -> bytes:
    """Read an image file.

    Raises ImageError if it cannot be read, is no regular file, or too large, or if it is changed
    meanwhile.
    """
    return read_stamped(path, name=name)[0]


def read_stamped(path: Path, *, name: str) -> tuple[bytes, FileStamp | None]:
    """Read an image file as read_bytes does, with the stamp of just these bytes."""
    try:
        return read_whole(path, most_bytes=MAX_FILE_BYTES)
    except ImageError as error:
        raise ImageError(f"{printable(name)}: {error}") from error
    except OSError as error:
        reason = printable(error.strerror or str(error))
        raise ImageError(
            f"{printable(name)}: cannot be read: {reason}; check that it exists and may be read"
        ) from error


def decode_image(data: bytes, *, name: str) -> UInt8:
    """Return the pixels alone of what decode_picture decodes."""
    return decode_picture(data, name=name).pixels


def decode_picture(data: bytes, *, name: str) -> Picture:
    """Decode a JPEG, PNG, TIFF, BMP or WebP image of one field.

    Grayscale becomes three equal channels, alpha is dropped, a palette is looked up, CMYK is
    converted (without a colour profile), the EXIF orientation is applied. 16 bits become 8 by the
    range of the camera: see rbc_engine.sources.images.bit_depth.

    A damaged file is refused, not decoded in part. JPEG has no checksum: flipped bits are noticed
    where they break the code, not where they happen to spell another valid image.

    name: what error messages call the file.

    Its pixels are uint8 [H, W, 3], RGB, C-contiguous, sides MIN_SIDE_PX..MAX_SIDE_PX. Raises
    ImageError, in one line.
    """
    label = printable(name)
    if not data:
        raise ImageError(f"{label}: the file is empty; copy or export it again")
    reader = reader_of(data)
    if reader is None:
        unread = unread_kind(data)
        if unread is not None:
            raise ImageError(f"{label}: {unread[0]}, which is not read; {unread[1]}")
        *names, last = (known.name for known in READERS if _MISSING[known.name] is None)
        raise ImageError(
            f"{label}: begins with {data[:8]!r}, which is no {', '.join(names)} or {last}; export "
            "it as one of these"
        )
    missing = _MISSING[reader.name]
    if missing is not None:
        raise ImageError(f"{label}: a {reader.name} picture: {missing}, or export it as JPEG")
    decode = reader.load()
    try:
        picture = decode(data)
        return dataclasses.replace(picture, pixels=np.ascontiguousarray(picture.pixels))
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        # On damaged files the libraries raise whatever comes, from struct.error to KeyError.
        reason = printable(" ".join(str(error).split()) or type(error).__name__)
        raise ImageError(
            f"{label}: damaged or unsupported {reader.name} ({reason:.200}); copy or export it "
            "again"
        ) from error
