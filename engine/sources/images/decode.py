"""Bytes of an image file to RGB pixels, or one line that says why not.

What a file is, its first bytes decide, never its name. Limits are checked in the header, before pixels are decoded.
"""

from __future__ import annotations

import io
import logging
import math
import stat
import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
import tifffile
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from rbc_engine.errors import ImageError
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import MAX_SIDE_PX, MIN_SIDE_PX

__all__ = [
    "MAX_FILE_BYTES",
    "decode_image",
    "plain_jpeg",
    "read_bytes",
    "read_image",
]

MAX_FILE_BYTES = 512 * 2**20

_MIN_BITS = 13
"""16-bit images whose brightest value needs fewer come from a 10- or 12-bit camera, unscaled: nearly black."""

_JPEG_MAGIC = b"\xff\xd8\xff"
_MAX_TIFF_PAGES = 32
_TIFF_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
"""Those whose decoders never write more than a strip holds."""
_GRAY_INVERTED, _GRAY, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_TIFF_SAMPLES = {_GRAY_INVERTED: (1, 2), _GRAY: (1, 2), _RGB: (3, 4), _PALETTE: (1,), _CMYK: (4, 5)}
"""Samples a pixel, without and with alpha, for each photometric interpretation that is read."""
_TIFF_ORIENTATION = 0x0112

# tifffile logs what it finds wrong; with no handler anywhere, Python would print it beside our own message.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def read_image(path: Path, *, name: str) -> UInt8:
    """Reads and decodes one file, as decode_image does. Raises ImageError also if the file cannot be read."""
    return decode_image(read_bytes(path, name=name), name=name)


def read_bytes(path: Path, *, name: str) -> bytes:
    """What an image file holds. Raises ImageError if it cannot be read, is no regular file, or too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{printable(name)}: not a regular file; give an image file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(
                f"{printable(name)}: {status.st_size} bytes, more than the {MAX_FILE_BYTES} an image file may have; "
                f"cut it into fields, or open it as a whole slide"
            )
        return path.read_bytes()
    except OSError as error:
        reason = printable(error.strerror or str(error))
        raise ImageError(
            f"{printable(name)}: cannot be read: {reason}; check that it exists and may be read"
        ) from error


def plain_jpeg(data: bytes) -> bool:
    """Whether this is a JPEG in grey or colour, of a size that is accepted, as far as its header tells."""
    if not data.startswith(_JPEG_MAGIC):
        return False
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        _check_size(width, height)
    except (ValueError, ImageError):
        return False
    return colorspace not in ("CMYK", "YCCK")


def decode_image(data: bytes, *, name: str) -> UInt8:
    """Decodes a JPEG, PNG, TIFF, BMP or WebP image of one field.

    Grayscale becomes three equal channels, alpha is dropped, a palette is looked up, CMYK is converted (without a
    colour profile), the EXIF orientation is applied. 16 bits become 8 by their full range (65535 is 255); of a
    16-bit colour PNG only the high bytes count, which differs by one level at most.

    A damaged file is refused, not decoded in part. JPEG has no checksum: flipped bits are noticed
    where they break the code, not where they happen to spell another valid image.

    name: what error messages call the file.

    Returns uint8 [H, W, 3], RGB, C-contiguous, sides MIN_SIDE_PX..MAX_SIDE_PX. Raises ImageError, in one line.
    """
    label = printable(name)
    if not data:
        raise ImageError(f"{label}: the file is empty; copy or export it again")
    known = _decoder(data)
    if known is None:
        raise ImageError(
            f"{label}: begins with {data[:8]!r}, which is no JPEG, PNG, TIFF, BMP or WebP; export it as one of these"
        )
    kind, decode = known
    try:
        return np.ascontiguousarray(decode(data))
    except ImageError as error:
        raise ImageError(f"{label}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        # On damaged files the libraries raise whatever comes, from struct.error to KeyError.
        reason = printable(" ".join(str(error).split()) or type(error).__name__)
        raise ImageError(
            f"{label}: damaged or unsupported {kind} ({reason:.200}); copy or export it again"
        ) from error


def _decoder(data: bytes) -> tuple[str, Callable[[bytes], UInt8]] | None:
    """What the first bytes say that the file is, and the function that decodes it."""
    if data.startswith(_JPEG_MAGIC):
        return "JPEG", _decode_jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", _decode_png
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF", _decode_tiff
    if data.startswith(b"BM"):
        return "BMP", _decode_bmp
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP", _decode_webp
    return None


def _decode_jpeg(data: bytes) -> UInt8:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=True)
    _check_size(width, height)
    if colorspace in ("CMYK", "YCCK"):
        # Adobe's JPEGs, and so all that there are, store ink inverted: 255 is none.
        inks = simplejpeg.decode_jpeg(data, "CMYK", strict=True)
        pixels = _cmyk_to_rgb(inks, raw_mode="CMYK;I")
    else:
        pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    return _upright(pixels, _exif_orientation(_jpeg_exif(data)))


def _decode_png(data: bytes) -> UInt8:
    # The classes themselves, not Image.open: it warns of large images, by a filter that threads share.
    with PngImageFile(io.BytesIO(data)) as image:
        _load(image)
        if image.mode.startswith("I"):
            gray = np.asarray(image).astype(np.uint16)[..., np.newaxis]
            pixels = np.repeat(_to_8_bits(gray), 3, axis=2)
        else:
            pixels = _to_rgb(image)
            bits_per_sample = data[24]
            if bits_per_sample == 16:
                _check_bits(int(pixels.max()) << 8)
        return _upright(pixels, _exif_orientation(image.info.get("exif", b"")))


def _decode_bmp(data: bytes) -> UInt8:
    with BmpImageFile(io.BytesIO(data)) as image:
        _load(image)
        return _to_rgb(image)


def _decode_webp(data: bytes) -> UInt8:
    try:
        image = WebPImageFile(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError(f"larger than {MAX_SIDE_PX} px a side; cut it into fields") from error
    with image:
        _load(image)
        pixels = _to_rgb(image)
        return _upright(pixels, _exif_orientation(image.info.get("exif", b"")))


def _load(image: ImageFile) -> None:
    _check_size(*image.size)
    count = getattr(image, "n_frames", 1)
    if count > 1:
        raise ImageError(f"an animation of {count} images; export each as a file of its own")
    image.load()


def _to_rgb(image: Image.Image) -> UInt8:
    """Of its own memory. numpy.array(image) would ask Pillow for all its bytes several times."""
    pixels: UInt8 = np.asarray(image if image.mode == "RGB" else image.convert("RGB")).copy()
    return pixels


def _decode_tiff(data: bytes) -> UInt8:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        pages = list(islice(tiff.pages, _MAX_TIFF_PAGES))
        full_size = [page for page in pages if not page.is_reduced]
        if len(full_size) != 1:
            raise ImageError(
                f"holds {len(full_size)} full-size images, but a TIFF file must hold one; export each as a file of "
                f"its own, or open it as a whole slide"
            )
        page = full_size[0]
        _check_tiff_page(page, file_bytes=len(data))
        planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # [planes, H, W, samples]
        samples = np.moveaxis(planes, 0, 2).reshape(page.imagelength, page.imagewidth, -1)
        return _upright(_tiff_to_rgb(page, samples), page.tags.valueof(_TIFF_ORIENTATION, 1))


def _check_tiff_page(page: tifffile.TiffPage, *, file_bytes: int) -> None:
    _check_size(page.imagewidth, page.imagelength)
    if page.dtype not in (np.uint8, np.uint16):
        kind = page.dtype or f"{page.bitspersample}-bit"
        raise ImageError(f"{kind} samples; export it with unsigned samples of 8 or 16 bits")
    if page.imagedepth != 1 or page.samplesperpixel not in _TIFF_SAMPLES.get(page.photometric, ()):
        photometric = getattr(page.photometric, "name", page.photometric)
        raise ImageError(
            f"photometric {photometric}, {page.samplesperpixel} samples a pixel, depth {page.imagedepth}; "
            f"export it as an RGB or grayscale image"
        )
    if page.compression not in _TIFF_COMPRESSIONS:
        compression = getattr(page.compression, "name", page.compression)
        readable = ", ".join(dict.fromkeys(_TIFF_COMPRESSIONS.values()))
        raise ImageError(
            f"compression {compression}; export it with another ({readable}), or as PNG or JPEG"
        )
    if page.is_tiled and max(page.tilewidth, page.tilelength) > MAX_SIDE_PX:
        raise ImageError(
            f"tiles of {page.tilewidth}x{page.tilelength} px, more than {MAX_SIDE_PX} px a side; export it again"
        )
    # tifffile fills missing strips with zeros.
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    whole = all(start > 0 and 0 < size <= file_bytes - start for start, size in segments)
    if len(segments) != math.prod(page.chunked) or not whole:
        raise ImageError("damaged TIFF (pixel data are missing); copy or export it again")


def _tiff_to_rgb(page: tifffile.TiffPage, samples: npt.NDArray[np.unsignedinteger]) -> UInt8:
    """samples: uint8 or uint16 [H, W, samples a pixel], as stored."""
    if page.photometric == _PALETTE:
        colours = np.asarray(page.colormap, np.uint16)
        _check_bits(int(colours.max()))
        # The high byte: some programs write 255 as 65535, some as 65280.
        return np.take((colours >> 8).astype(np.uint8).T, samples[..., 0], axis=0)
    colour_count = {_RGB: 3, _CMYK: 4}.get(page.photometric, 1)
    pixels = _to_8_bits(samples[..., :colour_count])
    if page.photometric == _CMYK:
        return _cmyk_to_rgb(pixels, raw_mode="CMYK")
    if page.photometric == _RGB:
        return pixels
    return np.repeat(255 - pixels if page.photometric == _GRAY_INVERTED else pixels, 3, axis=2)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"{width}x{height} px, but each side must have at least {MIN_SIDE_PX} px; give the image itself, not a "
            f"thumbnail or a crop"
        )
    if max(width, height) > MAX_SIDE_PX:
        raise ImageError(
            f"{width}x{height} px, but no side may exceed {MAX_SIDE_PX} px; cut it into fields, or open it as a "
            f"whole slide"
        )


def _check_bits(brightest: int) -> None:
    bits = brightest.bit_length()
    if bits < _MIN_BITS:
        raise ImageError(
            f"16-bit, but its brightest value is {brightest}, which needs {bits} bits: a camera's values, unscaled; "
            f"rescale it to 0..65535 first, or export it with 8 bits"
        )


def _to_8_bits(samples: npt.NDArray[np.unsignedinteger]) -> UInt8:
    """uint8 as it is; uint16 divided by 257 and rounded, in any shape."""
    if samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False)
    _check_bits(int(samples.max()))
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _cmyk_to_rgb(inks: UInt8, *, raw_mode: str) -> UInt8:
    height, width = inks.shape[:2]
    image = Image.frombytes("CMYK", (width, height), inks.tobytes(), "raw", raw_mode)
    return _to_rgb(image)


def _upright(pixels: UInt8, orientation: int) -> UInt8:
    """Undoes an EXIF orientation 1..8 (any other counts as 1)."""
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    return pixels.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else pixels


def _jpeg_exif(data: bytes) -> bytes:
    """The EXIF segment of a JPEG, empty if it has none before its first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        marker, size = struct.unpack_from(">BH", data, position + 1)
        if marker == 0xFF:  # padding
            position += 1
            continue
        segment = data[position + 4 : position + 2 + size]
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            return segment
        position += 2 + size
    return b""


def _exif_orientation(exif: bytes) -> int:
    """Orientation in an EXIF block, 1 (upright) if it has none or cannot be read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(count):
            position = directory + 2 + 12 * entry
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, position)
            if tag == _TIFF_ORIENTATION:
                return int(value) if kind == 3 else 1
    except struct.error:  # cut short
        pass
    return 1
