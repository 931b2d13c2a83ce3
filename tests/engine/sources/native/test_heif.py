"""HEIC pictures in a child process: read if its library is here, refused or passed over if not."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from rbc_engine.errors import ImageError
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.decode import decode_image
from rbc_engine.sources.images.native.child import decode_in_child

from ..images.image_files import smear

MODULE = """
import sys, time, os
{}
"""


def heic(pixels: np.ndarray) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    picture = pillow_heif.from_pillow(Image.fromarray(pixels))
    picture.save(file, quality=-1, chroma=444, matrix_coefficients=0)
    return file.getvalue()


def test_a_heic_is_its_pixels():
    pixels = smear(96, 128)
    np.testing.assert_array_equal(decode_image(heic(pixels), name="a.heic"), pixels)


def test_damaged_heics_are_refused():
    data = heic(smear(96, 128))
    for damaged in (data[:40], data[: len(data) // 2], data[:200] + bytes(len(data) - 200)):
        with pytest.raises(ImageError, match=r"a\.heic: damaged HEIC"):
            decode_image(damaged, name="a.heic")
    with pytest.raises(ImageError, match="20x20 px"):
        decode_image(heic(smear(20, 20)), name="a.heic")


def test_without_its_library_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("rbc_engine.sources.find.IMAGE_SUFFIXES", (".png",))
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    Image.fromarray(smear()).save(tmp_path / "b.png")
    found = find_fields([tmp_path])
    assert [entry.field for entry in found.entries] == ["b.png"]
    assert "1 .heic (export as JPEG" in found.passed_over.lines()[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("os.kill(os.getpid(), 11)", "its decoder ended with -11"),
        ("sys.stdout.write('{\"height\": 40, \"width\": 40}\\n' + 'x' * 99)", "cut short"),
        ('sys.stdout.write(\'{"height": 99999, "width": 40}\\n\')', "cut short"),
        ('sys.stdout.write(\'{"error": "a\\\\nb"}\\n\')', "^a.nb"),
        ("sys.stdout.write('[]\\n')", "damaged"),
        ("time.sleep(60)", "takes more than"),
    ],
)
def test_whatever_the_child_does_is_an_error_of_the_picture(tmp_path, monkeypatch, body, expected):
    (tmp_path / "bad_child.py").write_text(MODULE.format(body))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("rbc_engine.sources.images.native.child._WALL_S", 3.0)
    with pytest.raises(ImageError, match=expected):
        decode_in_child("bad_child", b"data", kind="HEIC")
