"""The converter of OME-Zarr in docs/slides.md: taken from there and run."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import zarr

from rbc_engine.sources.slides.base import Box
from rbc_engine.sources.slides.open import is_whole_slide, open_slide
from rbc_engine.sources.synthetic.field import render_field

from .slide_files import reduced


def write_ome_zarr(path, pixels, *, version, axes, levels=3, um=0.25, unit="micrometer"):
    """As bioformats2raw writes it (0.4, t c z y x), or of the newer form (0.5)."""
    factor = {"micrometer": 1.0, "nanometer": 1000.0}[unit]
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for level in range(levels):
        image = np.moveaxis(reduced(pixels, 2**level), -1, 0)
        if axes == "tczyx":
            image = image[None, :, None]
        chunks = (1,) * (image.ndim - 2) + (200, 300)
        group.create_array(str(level), data=image, chunks=chunks)
        scale = [1.0] * (image.ndim - 2) + [um * factor * 2**level] * 2
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    kinds = {"t": "time", "c": "channel"}
    described = [
        {"name": name, "type": kinds[name]}
        if name in kinds
        else {"name": name, "type": "space", "unit": unit}
        for name in axes
    ]
    multiscales = [{"version": version, "axes": described, "datasets": datasets}]
    if version == "0.4":
        group.attrs["multiscales"] = multiscales
    else:
        group.attrs["ome"] = {"version": version, "multiscales": multiscales}


@pytest.mark.parametrize(
    ("version", "axes", "unit"), [("0.4", "tczyx", "micrometer"), ("0.5", "cyx", "nanometer")]
)
def test_the_converter_of_the_documentation_makes_a_slide_of_an_ome_zarr(
    tmp_path, repository, version, axes, unit
):
    pixels = render_field(seed=2, width=1300, height=900, cells=40).pixels
    write_ome_zarr(tmp_path / "s.ome.zarr", pixels, version=version, axes=axes, unit=unit)
    text = (repository / "docs" / "slides.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "convert.py").write_text(code)
    command = [sys.executable, "convert.py", "s.ome.zarr", "s.tif"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "s.tif"
    assert is_whole_slide(path)
    slide = open_slide(path, name="s.tif")
    assert slide.scale.pixel_um == pytest.approx(0.25)
    assert slide.notes == []
    assert [level.down for level in slide.levels] == [1, 2, 4]
    for number, level in enumerate(slide.levels):
        got, _ = slide.read(number, Box(0, 0, level.width, level.height))
        np.testing.assert_array_equal(got, reduced(pixels, 2**number))
    slide.close()
