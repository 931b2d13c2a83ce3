"""DICOM whole slides through OpenSlide: a series of files is one slide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.sources.find import find_fields
from rbc_engine.sources.slides.base import Box
from rbc_engine.sources.slides.dicom_header import DicomHeader, parse_header
from rbc_engine.sources.slides.open import open_slide
from rbc_engine.types.frames import SlideRef

from ..images.image_files import smear
from .dicom_slide import write_level

LEVEL_0 = smear(500, 600)
RESAMPLED = "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"


@pytest.fixture
def folder(tmp_path):
    write_level(tmp_path / "b.dcm", LEVEL_0, um=0.25, number=1)
    write_level(tmp_path / "a.dcm", LEVEL_0[::2, ::2], um=0.5, number=2, kind=RESAMPLED)
    label = "ORIGINAL\\PRIMARY\\LABEL\\NONE"
    write_level(tmp_path / "0.dcm", LEVEL_0[:64, :64], um=9, number=3, kind=label)
    return tmp_path


def test_a_series_is_one_slide_with_its_levels_and_scale(folder):
    pytest.importorskip("openslide")
    write_level(folder / "other.dcm", LEVEL_0, um=0.25, series="2.25.8")
    found = find_fields([folder])
    assert [(type(entry), entry.field) for entry in found.entries] == [
        (SlideRef, "a.dcm"),
        (SlideRef, "other.dcm"),
    ]
    assert found.passed_over.lines() == ["passed over: 2 parts of a slide"]
    slide = open_slide(folder / "a.dcm", name="a")
    try:
        assert [(level.width, level.height) for level in slide.levels] == [(600, 500), (300, 250)]
        assert slide.scale.pixel_um == pytest.approx(0.25)
        pixels, whole = slide.read(0, Box(100, 60, 400, 300))
        assert whole
        assert np.abs(pixels.astype(int) - LEVEL_0[60:300, 100:400]).mean() < 3
    finally:
        slide.close()


@pytest.fixture(scope="module")
def level_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("dicom") / "a.dcm"
    write_level(path, LEVEL_0[:64, :64], um=0.25)
    return path.read_bytes()


@given(st.integers(0, 500), st.binary(max_size=60))
def test_headers_of_anything_are_read_without_an_error(level_bytes, cut, junk):
    assert parse_header(level_bytes) == DicomHeader("2.25.7", True)
    header = parse_header(level_bytes[:cut] + junk)
    assert header is None or isinstance(header, DicomHeader)
