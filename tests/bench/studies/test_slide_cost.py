"""The slide that the bench renders, and the memory that it counts."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rbc_engine.bench.settings import Size
from rbc_engine.bench.studies import slide_cost
from rbc_engine.bench.studies.slide_cost import main, render_slide, tree_peak_bytes
from rbc_engine.sources.slides.base import Box
from rbc_engine.sources.slides.open import open_slide


def smooth_piece(seed, *, cells):
    """Instead of a rendered field, which takes seconds."""
    if not cells:
        return np.full((2048, 2048, 3), 225, np.uint8)
    coarse = np.random.default_rng(seed).integers(60, 200, (12, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((2048, 2048), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_every_level_shows_the_same_slide_with_its_share_of_cells(tmp_path, monkeypatch, share):
    monkeypatch.setattr(slide_cost, "_piece", smooth_piece)
    path = tmp_path / "s.tif"
    size = Size(width=6000, height=3000)
    render_slide(path, size, cells_share=share)
    slide = open_slide(path, name="s.tif")
    assert (slide.levels[0].width, slide.levels[0].height) == (6000, 3000)
    assert [level.down for level in slide.levels] == pytest.approx([1, 4, 16], rel=0.01)
    assert slide.scale is not None
    assert slide.scale.pixel_um == pytest.approx(0.25)
    whole, _ = slide.read(0, Box(0, 0, 6000, 3000))
    for number, down in ((1, 4), (2, 16)):
        level = slide.levels[number]
        pixels, _ = slide.read(number, Box(0, 0, level.width, level.height))
        height, width = (side // down * down for side in whole.shape[:2])
        blocks = whole[:height, :width].reshape(height // down, down, width // down, down, 3)
        reduced = blocks.mean(axis=(1, 3))
        got = pixels[: height // down, : width // down]
        assert np.abs(got - reduced).mean() < 2
    slide.close()
    pieces = [
        whole[y : y + 2048, x : x + 2048]
        for y in range(0, 3000, 2048)
        for x in range(0, 6000, 2048)
    ]
    with_cells = sum(piece.std() > 5 for piece in pieces)
    assert with_cells == round(share * len(pieces))


def test_memory_of_children_counts():
    child = "data = bytearray(150_000_000); import time; time.sleep(1)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        peak = tree_peak_bytes(process)
    assert process.returncode == 0
    assert 150_000_000 < peak < 300_000_000


@pytest.mark.parametrize(
    ("option", "value"), [("--size", "40000"), ("--size", "1x2,3x4"), ("--cells-share", "1.5")]
)
def test_what_cannot_be_rendered_is_refused(monkeypatch, capsys, option, value):
    monkeypatch.setattr(sys, "argv", ["whole_slide", option, value])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert option in capsys.readouterr().err
