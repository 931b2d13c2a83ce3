"""Files of whole slides in several formats, made of given pixels."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

UM = 0.25
_APERIO = (
    "Aperio Image Library v11\n{w}x{h} [0,0 {w}x{h}] (256x256) JPEG/RGB Q=90|AppMag = 40|MPP = {um}"
)


def reduced(pixels, by):
    height, width = (side // by * by for side in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // by, by, width // by, by, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def write_pyramid(path, pixels, *, um=UM, levels=3, subifds=True, compression="deflate", **options):
    """A generic TIFF pyramid, tiled, each level half as large as the one before."""
    settings = {
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": compression,
        "metadata": None,
        **options,
    }
    resolution = {}
    if um is not None:
        resolution = {"resolution": (1e4 / um, 1e4 / um), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(pixels, subifds=levels - 1 if subifds else 0, **resolution, **settings)
        for level in range(1, levels):
            tiff.write(reduced(pixels, 2**level), subfiletype=1, **settings)
    return path


def write_svs(path, pixels, *, um=UM):
    height, width = pixels.shape[:2]
    text = _APERIO.format(w=width, h=height, um=um)
    settings = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, tile=(256, 256), description=text, **settings)
        tiff.write(reduced(pixels, 8), rowsperstrip=16, description="Aperio thumbnail", **settings)
        tiff.write(reduced(pixels, 4), tile=(256, 256), description=text, **settings)
    return path


# Hamamatsu NDPI: a TIFF whose pointers to the next directory have 8 bytes, each level one JPEG with
# restart markers.

NDPI_TILE_PX = 128
"""Width between two restart markers; the width of a level is a multiple of it."""

_SHORT, _LONG, _RATIONAL, _SLONG, _FLOAT, _ASCII = 3, 4, 5, 9, 11, 2


def write_ndpi(path, pixels, *, um=UM, levels=(1, 4), restarts=True):
    """Levels, largest first, then a macro image. Sides that are no multiple of what a level needs
    lose their rest.

    restarts: with restart markers, without which a level is a single tile.

    Returns the pixels that level 0 holds, as another decoder has them.
    """
    side = NDPI_TILE_PX * levels[-1]
    height, width = pixels.shape[0] // 32 * 32, pixels.shape[1] // side * side
    pixels = pixels[:height, :width]
    data = bytearray(b"II*\0" + bytes(8))
    pointer = 4
    for lens, image, down in [
        *((40.0, reduced(pixels, down), down) for down in levels),
        (-1.0, np.full((96, 256, 3), 240, np.uint8), 1),
    ]:
        markers = restarts and lens > 0
        jpeg = _jpeg(image, restarts=markers)
        start = len(data)
        data += jpeg
        directory = _ndpi_directory(
            len(data), image, jpeg, start=start, lens=lens, um=um * down, markers=markers
        )
        struct.pack_into("<Q", data, pointer, len(data))
        data += directory.entries
        pointer = len(data)
        data += bytes(8) + directory.values
    Path(path).write_bytes(data)
    return np.asarray(Image.open(io.BytesIO(_jpeg(pixels, restarts=restarts))))


def _jpeg(image, *, restarts):
    file = io.BytesIO()
    options = {"restart_marker_blocks": NDPI_TILE_PX // 8} if restarts else {}
    Image.fromarray(image).save(file, "JPEG", quality=95, subsampling=0, **options)
    return file.getvalue()


@dataclass
class _Directory:
    entries: bytes
    values: bytes


def _ndpi_directory(at, image, jpeg, *, start, lens, um, markers):
    """at: where in the file its entries will begin."""
    height, width = image.shape[:2]
    per_cm = (round(1e4 / um * 1000), 1000)
    tags = {
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [8, 8, 8]),
        259: (_SHORT, [7]),
        262: (_SHORT, [6]),
        271: (_ASCII, b"Hamamatsu\0"),
        272: (_ASCII, b"C9600-12\0"),
        273: (_LONG, [start]),
        277: (_SHORT, [3]),
        278: (_LONG, [height]),
        279: (_LONG, [len(jpeg)]),
        282: (_RATIONAL, per_cm),
        283: (_RATIONAL, per_cm),
        296: (_SHORT, [3]),
        65420: (_LONG, [1]),
        65421: (_FLOAT, [lens]),
        65422: (_SLONG, [0]),
        65423: (_SLONG, [0]),
        65424: (_SLONG, [0]),
        65449: (_ASCII, b"SerialNumber=0\r\n\0"),
    }
    if markers:
        tags[65426] = (_LONG, _restart_offsets(jpeg))
    formats = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _SLONG: "i", _FLOAT: "f"}
    entries, values = struct.pack("<H", len(tags)), b""
    values_at = at + 2 + 12 * len(tags) + 8
    for tag, (kind, value) in sorted(tags.items()):
        packed = value if kind == _ASCII else struct.pack(f"<{len(value)}{formats[kind]}", *value)
        count = len(value) // (2 if kind == _RATIONAL else 1)
        if len(packed) > 4:
            field = struct.pack("<I", values_at + len(values))
            values += packed + bytes(len(packed) % 2)
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, count) + field
    return _Directory(entries=entries, values=values)


def _restart_offsets(jpeg):
    """Where the data of each interval begins, in the JPEG: after its header, and after each restart
    marker.
    """
    scan = jpeg.index(b"\xff\xda")
    begin = scan + 2 + struct.unpack_from(">H", jpeg, scan + 2)[0]
    data = np.frombuffer(jpeg, np.uint8)
    marks = np.flatnonzero(
        (data[begin:-1] == 0xFF) & (data[begin + 1 :] >= 0xD0) & (data[begin + 1 :] <= 0xD7)
    )
    return [begin, *(int(mark) + begin + 2 for mark in marks)]


# 3DHISTECH MIRAX: photographs at positions of their own, which overlap, each cut into 2x2 images.

MRXS_IMAGE_PX = 128
_PHOTO_PX = 2 * MRXS_IMAGE_PX
_OVERLAP_PX = 32
_STEP_PX = _PHOTO_PX - _OVERLAP_PX
_SLIDE_ID = "0123456789ABCDEF0123456789ABCDEF"
_MRXS_LEVELS = 3


def write_mrxs(path, pixels, *, um=UM, missing=(), image_format="PNG"):
    """A slide of as many whole photographs as fit, and the pixels that it shows.

    missing: photographs, (row, column), that were not taken.
    """
    path = Path(path)
    rows, columns = ((side - _OVERLAP_PX) // _STEP_PX // 2 * 2 for side in pixels.shape[:2])
    height, width = (count * _STEP_PX + _OVERLAP_PX for count in (rows, columns))
    pixels = pixels[:height, :width]
    rng = np.random.default_rng(0)
    positions = {}
    for row in range(rows):
        for column in range(columns):
            # A microscope's stage is not exact; by 4 px, so that positions are whole on the coarser
            # levels too.
            y, x = (
                int(np.clip(index * _STEP_PX + 4 * rng.integers(-2, 3), 0, (count - 1) * _STEP_PX))
                for index, count in ((row, rows), (column, columns))
            )
            y, x = (
                index * _STEP_PX if index in (0, count - 1) else value
                for index, count, value in ((row, rows, y), (column, columns, x))
            )
            positions[row, column] = y, x
    folder = path.with_suffix("")
    folder.mkdir()
    data, levels = bytearray(), []
    for level in range(_MRXS_LEVELS):
        levels.append(
            [
                (index, *_appended(data, image, image_format))
                for index, image in _mrxs_images(pixels, positions, columns, level, set(missing))
            ]
        )
    table = b"".join(
        struct.pack("<Bii", 0, *positions[row, column][::-1])
        for row in range(rows)
        for column in range(columns)
    )
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Data0001.dat").write_bytes(table)
    (folder / "Index.dat").write_bytes(_mrxs_index(levels, len(table)))
    (folder / "Slidedat.ini").write_text(
        _slidedat(rows=rows, columns=columns, um=um, image_format=image_format)
    )
    path.write_bytes(b"\xff\xd8")  # a picture for people, which no reader looks at
    return pixels


def _mrxs_images(pixels, positions, columns, level, missing):
    """(index, image): on level 0 four a photograph, above it 2x2 of the level below in one, half as
    large.
    """
    photos = {
        key: pixels[y : y + _PHOTO_PX, x : x + _PHOTO_PX]
        for key, (y, x) in positions.items()
        if key not in missing
    }
    across = 2 * columns
    if level == 0:
        for (row, column), photo in photos.items():
            for down in (0, 1):
                for right in (0, 1):
                    y, x = down * MRXS_IMAGE_PX, right * MRXS_IMAGE_PX
                    index = (2 * row + down) * across + 2 * column + right
                    yield index, photo[y : y + MRXS_IMAGE_PX, x : x + MRXS_IMAGE_PX]
        return
    side = 2 ** (level - 1)  # photographs in an image
    for row, column in {(row // side, column // side) for row, column in photos}:
        image = np.zeros((MRXS_IMAGE_PX, MRXS_IMAGE_PX, 3), np.uint8)
        part = MRXS_IMAGE_PX // side
        for down in range(side):
            for right in range(side):
                photo = photos.get((row * side + down, column * side + right))
                if photo is not None:
                    small = reduced(photo, 2**level)
                    image[down * part : (down + 1) * part, right * part : (right + 1) * part] = (
                        small
                    )
        yield 2 * side * (row * across + column), image


def _appended(data, image, image_format):
    file = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {}
    Image.fromarray(image).save(file, image_format, **options)
    start = len(data)
    data += file.getvalue()
    return start, len(data) - start


def _mrxs_index(levels, table_bytes):
    head = b"01.02" + _SLIDE_ID.encode()
    body = bytearray(bytes(8))
    base = len(head)

    def here():
        return base + len(body)

    def record(page):
        """A data page, and before it what points to it. Returns where that is."""
        at = here()
        body.extend(struct.pack("<ii", 0, at + 8) + page)
        return at

    pages = [
        struct.pack("<ii", len(images), 0)
        + b"".join(struct.pack("<iiii", *image, 0) for image in images)
        for images in levels
    ]
    records = [record(page) for page in pages]
    positions = record(struct.pack("<7i", 1, 0, 0, 0, 0, table_bytes, 1))
    for root, pointers in ((0, records), (4, [positions])):
        struct.pack_into("<i", body, root, here())
        body.extend(struct.pack(f"<{len(pointers)}i", *pointers))
    return head + bytes(body)


def _slidedat(*, rows, columns, um, image_format):
    def section(name, **keys):
        return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())

    sections = [
        section(
            "GENERAL",
            SLIDE_VERSION="01.02",
            SLIDE_ID=_SLIDE_ID,
            IMAGENUMBER_X=2 * columns,
            IMAGENUMBER_Y=2 * rows,
            OBJECTIVE_MAGNIFICATION=40,
            CameraImageDivisionsPerSide=2,
        ),
        section(
            "HIERARCHICAL",
            HIER_COUNT=1,
            NONHIER_COUNT=1,
            INDEXFILE="Index.dat",
            HIER_0_NAME="Slide zoom level",
            HIER_0_COUNT=_MRXS_LEVELS,
            **{f"HIER_0_VAL_{i}_SECTION": f"LAYER_0_LEVEL_{i}" for i in range(_MRXS_LEVELS)},
            NONHIER_0_NAME="VIMSLIDE_POSITION_BUFFER",
            NONHIER_0_COUNT=1,
            NONHIER_0_VAL_0="default",
            NONHIER_0_VAL_0_SECTION="NONHIERLAYER_0",
        ),
        section("NONHIERLAYER_0", VIMSLIDE_POSITION_DATA_FORMAT_VERSION=257),
        section("DATAFILE", FILE_COUNT=2, FILE_0="Data0000.dat", FILE_1="Data0001.dat"),
    ]
    for level in range(_MRXS_LEVELS):
        sections.append(
            section(
                f"LAYER_0_LEVEL_{level}",
                OVERLAP_X=_OVERLAP_PX / 2**level,
                OVERLAP_Y=_OVERLAP_PX / 2**level,
                MICROMETER_PER_PIXEL_X=um * 2**level,
                MICROMETER_PER_PIXEL_Y=um * 2**level,
                IMAGE_FORMAT=image_format,
                IMAGE_FILL_COLOR_BGR=0xE6EBF0,
                DIGITIZER_WIDTH=MRXS_IMAGE_PX,
                DIGITIZER_HEIGHT=MRXS_IMAGE_PX,
                IMAGE_CONCAT_FACTOR=int(level > 0),
            )
        )
    return "\n".join(sections)
