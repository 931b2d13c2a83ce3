"""Hundreds of damaged and odd pictures: none ends the reading, and each comes to its end."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
from PIL import Image

from rbc_engine.sources.images.files import FileSource
from rbc_engine.types.frames import FieldRef

from .image_files import pillow_bytes, smear, tiff_bytes

COUNT = 500
RGB = smear(72, 96)
PLANES = np.moveaxis(RGB, 2, 0)
WHOLE = {
    "jpg": pillow_bytes(RGB, "JPEG", quality=90),
    "progressive.jpg": pillow_bytes(RGB, "JPEG", progressive=True),
    "restarts.jpg": pillow_bytes(RGB, "JPEG", restart_marker_rows=1),
    "cmyk.jpg": pillow_bytes(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "png": pillow_bytes(RGB, "PNG"),
    "palette.png": pillow_bytes(Image.fromarray(RGB).quantize(64), "PNG"),
    "deep.png": pillow_bytes(Image.fromarray(RGB[..., 0].astype(np.uint16) * 16), "PNG"),
    "bmp": pillow_bytes(RGB, "BMP"),
    "webp": pillow_bytes(RGB, "WEBP", lossless=True),
    "tif": tiff_bytes(RGB, photometric="rgb"),
    "tiles.tif": tiff_bytes(RGB, photometric="rgb", tile=(32, 32), compression="lzw"),
    "jpeg.tif": pillow_bytes(RGB, "TIFF", compression="jpeg"),
    "deep.tif": tiff_bytes(RGB.astype(np.uint16) * 16, photometric="rgb", compression="zlib"),
    "ome.tif": tiff_bytes(PLANES, ome=True, metadata={"axes": "CYX"}),
    "imagej.tif": tiff_bytes(PLANES, imagej=True, metadata={"axes": "CYX"}),
}
TEXT_KINDS = (b"", b"text", b"GIF89a", bytes(300), b"%PDF-1.4", b"\xff\xd8\xff\xe0", b"II*\0")


def mutated(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(out)) if draw.random() < 0.5 else draw.randrange(min(300, len(out)))
        kind = draw.randrange(6)
        if kind == 0:
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            out[at:] = b""
        elif kind == 2:
            out[at:at] = draw.randbytes(draw.randint(1, 20))
        elif kind == 3:
            out[at : at + draw.randint(1, 40)] = b""
        elif kind == 4:
            out[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"))
        else:
            out[at : at + 60] = out[:60]
        if not out:
            return b""
    return bytes(out)


def test_none_ends_the_reading_and_each_has_its_end(tmp_path):
    draw = random.Random(19)
    refs = []
    for index in range(COUNT):
        kind = draw.choice(list(WHOLE))
        data = draw.choice(TEXT_KINDS) if index % 25 == 0 else mutated(WHOLE[kind], draw)
        path = tmp_path / f"{index}.{kind}"
        path.write_bytes(data)
        refs.append(FieldRef(slide="s", field=path.name, path=path))
    tracemalloc.start()
    try:
        with FileSource(refs, workers=2, ahead=4) as source:
            read = list(source)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [decoded.ref for decoded in read] == refs
    whole = 0
    for decoded in read:
        if decoded.frame is not None:
            whole += 1
            assert decoded.error is None
            assert decoded.frame.pixels.dtype == np.uint8
            continue
        error = decoded.error or ""
        assert error.startswith(f"{decoded.ref.field}: "), error
        assert "; " in error, error
        assert error.isprintable(), error
        assert len(error) < 600, error
    assert 20 < whole < COUNT - 200
    assert peak_bytes < 150 * 2**20


def test_whole_ones_are_read():
    from rbc_engine.sources.images.decode import decode_image

    for name, data in WHOLE.items():
        assert decode_image(data, name=name).shape == (72, 96, 3), name
