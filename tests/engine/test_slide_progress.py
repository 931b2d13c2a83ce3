"""How far a run is inside a whole slide: what is told of it, and what a terminal shows."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from rbc_engine.bench.stub_engine import stub_engine
from rbc_engine.sources.slide_tiles import SlideSource
from rbc_engine.sources.synthetic import render_field
from rbc_engine.types import SlideRef
from rbc_engine.whole_slides import WholeSlides


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Cells at the left, nothing at the right."""
    path = tmp_path_factory.mktemp("slides") / "s.tif"
    cells = render_field(seed=3, width=1200, height=900, cells=60).pixels
    pixels = np.concatenate([cells, np.full((900, 1200, 3), 225, np.uint8)], axis=1)
    with tifffile.TiffWriter(path) as tiff:
        for down in (1, 2):
            tiff.write(
                pixels[::down, ::down],
                tile=(256, 256),
                photometric="rgb",
                metadata=None,
                subfiletype=int(down > 1),
            )
    return path


def test_every_tile_is_told_in_order(slide):
    refs = [SlideRef(slide=name, field=name, path=slide) for name in ("a", "b")]
    told = []
    with (
        stub_engine(regions=5) as engine,
        SlideSource(
            refs, settings=engine.pack.manifest.detector, pixel_um=None, workers=2, ahead=4
        ) as source,
    ):
        found = list(WholeSlides(engine, on_tile=told.append).results(source))
    for result in found:
        tiles = result.tiles.run + result.tiles.blank
        assert result.tiles.run
        assert result.tiles.blank
        of_it = [each for each in told if each.field == result.field]
        assert [(each.done, each.tiles) for each in of_it] == [
            (done, tiles) for done in range(1, tiles + 1)
        ]
        assert of_it[-1].regions >= len(result.regions) > 0
    assert [each.field for each in told] == sorted(each.field for each in told)


def terminal_of(*arguments):
    """What a run writes to a terminal of 120 columns that is its stderr."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "rbc_engine", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    shown = b""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=its, env=environment) as run:
        os.close(its)
        try:
            while part := os.read(mine, 65536):
                shown += part
        except OSError:  # the other end was closed
            pass
    os.close(mine)
    assert run.returncode == 0, shown
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()


def test_a_terminal_shows_the_tiles_of_the_slide_in_hand(slide, tmp_path):
    # Pixels said to be coarse: so many tiles that not all are in the engine at once.
    options = ("--formats", "", "--um-per-px", 0.4)
    shown = terminal_of("run", slide, "--out", tmp_path / "out", *options)
    counts = [(int(a), int(b)) for a, b in re.findall(r"(\d+)/(\d+) tiles", shown)]
    assert counts
    assert counts == sorted(counts)
    assert len({tiles for _, tiles in counts}) == 1
    assert re.search(r"fields 0/1 .* 0 slides, \d+/\d+ tiles of the next +\d+ cells/s", shown)
