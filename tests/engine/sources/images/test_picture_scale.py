"""The scale that pictures state: by whom, in what unit; and what is no microscope's."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from rbc_engine.sources.images.decode import decode_picture
from rbc_engine.sources.images.files import FileSource
from rbc_engine.sources.slides.base import Box
from rbc_engine.sources.slides.open import open_slide
from rbc_engine.sources.stated_scale import objective_scale
from rbc_engine.types.frames import FieldRef

from .image_files import pillow_bytes, smear, tiff_bytes


def scale_of(data: bytes) -> float | None:
    scale = decode_picture(data, name="a").scale
    return None if scale is None else scale.pixel_um


def ome(size: float, unit: str) -> bytes:
    metadata = {"PhysicalSizeX": size, "PhysicalSizeXUnit": unit}
    metadata |= {"PhysicalSizeY": size, "PhysicalSizeYUnit": unit}
    return tiff_bytes(smear(), photometric="rgb", ome=True, metadata={"axes": "YXS", **metadata})


@pytest.mark.parametrize(
    ("size", "unit"), [(0.096, "µm"), (96, "nm"), (0.000096, "mm"), (9.6e-6, "cm"), (9.6e-8, "m")]
)
def test_ome(size, unit):
    assert scale_of(ome(size, unit)) == pytest.approx(0.096)


@pytest.mark.parametrize(("size", "unit"), [(96, "pixel"), (500, "µm"), (0.000001, "µm")])
def test_what_ome_cannot_mean_is_ignored_with_a_note(size, unit):
    picture = decode_picture(ome(size, unit), name="a")
    assert picture.scale is None
    assert "ignored" in picture.notes[0]


@pytest.mark.parametrize(
    ("unit", "per_um"),
    [("micron", 1), ("um", 1), ("\\u00B5m", 1), ("nm", 1e3), ("mm", 1e-3), ("cm", 1e-4)],
)
def test_imagej(unit, per_um):
    per_unit = 10.0 / per_um
    data = tiff_bytes(
        smear(),
        photometric="rgb",
        metadata=None,
        description=f"ImageJ=1.54f\nunit={unit}\n",
        resolution=(per_unit, per_unit),
        resolutionunit="NONE",
    )
    assert scale_of(data) == pytest.approx(0.1)


def test_a_pyramid_of_imagej_states_it_as_a_picture_does(tmp_path):
    path, large = tmp_path / "a.tif", smear(600, 800)
    common = {"photometric": "rgb", "tile": (128, 128), "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            large,
            description="ImageJ=1.54f\nunit=micron\n",
            resolution=(10.0, 10.0),
            resolutionunit="NONE",
            subifds=1,
            **common,
        )
        writer.write(large[::2, ::2], subfiletype=1, **common)
    slide = open_slide(path, name="a")
    try:
        assert slide.scale.pixel_um == pytest.approx(0.1)
        assert slide.notes == []
        assert [(level.width, level.height) for level in slide.levels] == [(800, 600), (400, 300)]
        pixels, _ = slide.read(1, Box(0, 0, 400, 300))
        np.testing.assert_array_equal(pixels, large[::2, ::2])
    finally:
        slide.close()


@pytest.mark.parametrize("unit", ["pixel", "inch", "pixels", ""])
def test_imagej_without_a_length_says_nothing(unit):
    data = tiff_bytes(
        smear(),
        photometric="rgb",
        metadata=None,
        description=f"ImageJ=1.54f\nunit={unit}\n",
        resolution=(72.0, 72.0),
    )
    picture = decode_picture(data, name="a")
    assert (picture.scale, list(picture.notes)) == (None, [])


def resolved(per_unit: float, unit: str) -> bytes:
    return tiff_bytes(
        smear(), photometric="rgb", resolution=(per_unit, per_unit), resolutionunit=unit
    )


@pytest.mark.parametrize(
    ("per_unit", "unit", "expected"),
    [
        (100_000, "CENTIMETER", 0.1),
        (254_000, "INCH", 0.1),
        (72, "INCH", None),
        (300, "INCH", None),
        (1200, "INCH", None),
        (28.35, "CENTIMETER", None),
        (100_000, "NONE", None),
    ],
)
def test_the_resolution_of_a_tiff_counts_where_it_can_be_a_microscopes(per_unit, unit, expected):
    assert scale_of(resolved(per_unit, unit)) == (expected and pytest.approx(expected))


def test_the_density_of_a_jpeg_likewise():
    dense = pillow_bytes(smear(), "JPEG", dpi=(65_000, 65_000))
    assert scale_of(dense) == pytest.approx(25400 / 65000)
    assert scale_of(pillow_bytes(smear(), "JPEG", dpi=(300, 300))) is None
    assert scale_of(pillow_bytes(smear(), "JPEG")) is None


def test_the_power_of_an_objective():
    notes: list[str] = []
    assert objective_scale("20", notes=notes).pixel_um == 0.5
    assert objective_scale("40.0", notes=notes).by == "objective power 40"
    assert (objective_scale(None, notes=notes), notes) == (None, [])
    for power in ("x", "0", "nan", "1e9"):
        assert objective_scale(power, notes=notes) is None
    assert len(notes) == 4


def test_a_run_uses_it_says_so_and_the_user_overrides_it(tmp_path):
    (tmp_path / "a.tif").write_bytes(ome(0.1, "µm"))
    (tmp_path / "b.tif").write_bytes(ome(0.2, "µm"))
    (tmp_path / "c.jpg").write_bytes(pillow_bytes(smear(), "JPEG"))
    deep = np.full((40, 40, 3), 4000, np.uint16)
    (tmp_path / "d.tif").write_bytes(tiff_bytes(deep, photometric="rgb"))
    refs = [FieldRef(slide="s", field=p.name, path=p) for p in sorted(tmp_path.iterdir())]

    def read(pixel_um: float | None):
        with FileSource(refs, workers=2, ahead=4, pixel_um=pixel_um) as source:
            frames = [decoded.frame for decoded in source]
            scales = [(frame.pixel_um, frame.pixel_um_from) for frame in frames if frame]
            return scales, list(source.notes)

    scales, notes = read(None)
    assert scales == [(0.1, "stated"), (0.2, "stated"), (None, "given"), (None, "given")]
    assert len(notes) == 2
    assert notes[0].startswith("2 fields state their scale themselves, by PhysicalSize of OME")
    assert "1 fields, the first of them d.tif: 16-bit values that use 12 bits" in notes[1]
    scales, notes = read(0.3)
    assert scales == [(0.3, "given")] * 4
    assert len(notes) == 1
