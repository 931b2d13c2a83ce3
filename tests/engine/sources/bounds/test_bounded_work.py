"""Small files that ask for much: planes that are not there, scans without end, sizes beyond memory."""

from __future__ import annotations

import contextlib
import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds import free_memory
from rbc_engine.sources.bounds.bounded_tiff import bounded_series, open_tiff
from rbc_engine.sources.bounds.jpeg_scans import check_scans
from rbc_engine.sources.bounds.webp_size import webp_size
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.sources.images.jpeg import plain_jpeg
from rbc_engine.sources.slides.open import is_whole_slide, open_slide

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)


def ome(
    path: Path, *, pixels: str = "", data: str = '<TiffData IFD="0"/>', before: str = ""
) -> Path:
    xml = (
        f'<?xml version="1.0"?>{before}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" '
        f'SizeX="80" SizeY="64" {pixels or _SIZES}><Channel ID="C:0" SamplesPerPixel="3"/>{data}'
        "</Pixels></Image></OME>"
    )
    with tifffile.TiffWriter(path) as writer:
        writer.write(PIXELS, photometric="rgb", description=xml, metadata=None)
    return path


_SIZES = 'SizeC="3" SizeZ="1" SizeT="1"'
_OTHER = '<TiffData IFD="0" PlaneCount="1"><UUID FileName="%s">urn:uuid:1</UUID></TiffData>'


def test_a_plain_ome_tiff_is_read(tmp_path: Path):
    with open_tiff(ome(tmp_path / "a.ome.tif")) as tiff:
        assert tiff.is_ome
        assert bounded_series(tiff)[0].shape == PIXELS.shape


@pytest.mark.parametrize(
    "what",
    [
        {"data": '<TiffData IFD="0" PlaneCount="1000000000"/>'},
        {"data": '<TiffData IFD="0" NumPlanes="  99999999"/>'},
        {"data": '<TiffData FirstZ="99999999" PlaneCount="1"/>'},
        {"data": '<TiffData IFD="0" PlaneCount="60000"/>' * 3},
        {"pixels": 'SizeC="3" SizeZ="1" SizeT="2000000000"'},
        {"pixels": 'SizeC="3" SizeZ="5000" SizeT="5000"'},
        {"pixels": 'SizeC="3" SizeZ="-1" SizeT="1"'},
        {"pixels": 'SizeC="3" SizeZ="&#57;99999999" SizeT="1"'},
        {
            "before": '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
            "data": "&b;",
        },
        {"data": '<TiffData IFD="0"/><ModuloAlongT Start="0" End="1e12" Step="1e-3"/>'},
    ],
)
def test_planes_that_are_only_claimed_cost_nothing(tmp_path: Path, what: dict[str, str]):
    path = ome(tmp_path / "a.ome.tif", **what)
    started = time.perf_counter()
    with open_tiff(path) as tiff, pytest.raises(ImageError, match=r"metadata"):
        bounded_series(tiff)
    assert not is_whole_slide(path)
    with pytest.raises(ImageError):
        open_slide(path, name="a.ome.tif")
    assert time.perf_counter() - started < 5


def test_files_that_metadata_name_are_not_opened(tmp_path: Path, monkeypatch):
    import os

    (tmp_path / "in").mkdir()
    outside = ome(tmp_path / "outside.ome.tif")
    os.mkfifo(tmp_path / "in" / "pipe.tif")
    opened: list[str] = []
    real = tifffile.FileHandle.open

    def watch(self):
        opened.append(str(self._file))
        return real(self)

    monkeypatch.setattr(tifffile.FileHandle, "open", watch)
    for name in ("pipe.tif", "../outside.ome.tif", str(outside)):
        path = ome(tmp_path / "in" / "a.ome.tif", data=_OTHER % name)
        opened.clear()
        is_whole_slide(path)
        with open_tiff(path) as tiff:
            bounded_series(tiff)
        assert opened
        assert {Path(file).name for file in opened} == {"a.ome.tif"}


def test_directories_that_go_in_circles_end(tmp_path: Path):
    path = ome(tmp_path / "a.tif")
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    path.write_bytes(data)
    started = time.perf_counter()
    is_whole_slide(path)
    with contextlib.suppress(ImageError):
        decode_image(bytes(data), name="a.tif")
    assert time.perf_counter() - started < 5


def progressive(scans: int, *, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 90, 140)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def test_usual_jpegs_have_few_enough_scans():
    check_scans(progressive(0))
    decode_image(progressive(0), name="a.jpg")
    thumbnails = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "\u00ff\u00da" * 3000
    Image.new("RGB", (64, 64)).save(thumbnails, "JPEG", exif=exif.tobytes() + b"\xff\xda" * 3000)
    decode_image(thumbnails.getvalue(), name="a.jpg")


def test_thousands_of_scans_are_refused_before_the_first_is_decoded():
    data = progressive(3000)
    started = time.perf_counter()
    with pytest.raises(ImageError, match=r"a\.jpg: a JPEG of 3[0-9]{3} scans"):
        decode_image(data, name="a.jpg")
    assert not plain_jpeg(data)
    assert time.perf_counter() - started < 2
    large = bytearray(progressive(60))
    frame = large.index(b"\xff\xc2")
    struct.pack_into(">HH", large, frame + 5, 8000, 8000)
    with pytest.raises(ImageError, match="64000000 pixels"):
        decode_image(bytes(large), name="a.jpg")


def test_a_header_is_believed_only_as_far_as_there_is_memory(monkeypatch):
    file = io.BytesIO()
    Image.new("L", (8192, 8192)).save(file, "PNG")
    assert len(file.getvalue()) < 200_000
    left = free_memory.available_bytes()
    assert left is None or left > 0
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 1 << 30)
    with pytest.raises(
        ImageError, match=r"8192x8192 px would take 1\.5 GiB of memory, and 1\.0 GiB"
    ):
        decode_image(file.getvalue(), name="a.png")


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": Image.Exif().tobytes()}])
def test_the_size_of_a_webp_is_read_from_its_header(options, monkeypatch):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "WEBP", **options)
    data = file.getvalue()
    assert webp_size(data) == (80, 64)
    assert all(webp_size(data[:length]) in (None, (80, 64)) for length in range(40))
    decode_image(data, name="a.webp")
    monkeypatch.setattr("rbc_engine.sources.images.pillow.webp_size", lambda data: (16383, 16383))
    monkeypatch.setattr("rbc_engine.sources.images.pillow.WebPImageFile", None)
    with pytest.raises(ImageError, match="16383x16383 px"):
        decode_image(data, name="a.webp")
