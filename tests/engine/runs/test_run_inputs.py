"""A run over folders as they are: with its own results in them, earlier ones, copies, NAS folders.

Lanes sleep instead of computing.
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
from PIL import Image

from rbc_engine import UsageError, run_folder
from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.engine import Engine


@pytest.fixture(autouse=True)
def opened():
    def stub(_pack, **_options):
        return stub_engine(lanes=1, lane_frames=1, regions=3)

    with mock.patch.object(Engine, "open", stub):
        yield


def save(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 48, 3), level, np.uint8)).save(path)
    return path


def test_results_are_never_input(tmp_path):
    folder = tmp_path / "in"
    for index in range(2):
        save(folder / "s" / f"{index}.png", 40 * index)
    first = run_folder(folder, folder / "out", formats=("overlay", "patches"))
    assert first.record.counts.fields == 2
    assert len(list((folder / "out").rglob("*.png"))) > 2
    again = run_folder(folder, folder / "out", formats=("overlay", "patches"), resume=True)
    assert again.record.counts.fields == 2
    other = run_folder(folder, tmp_path / "elsewhere", formats=())
    assert other.record.counts.fields == 2
    line = "passed over, folders with results of a run: out"
    assert line in again.record.warnings
    assert line in other.record.warnings
    with pytest.raises(UsageError, match="holds no image"):
        run_folder(folder / "out", tmp_path / "third", formats=())


def test_a_run_json_of_another_program_is_no_result(tmp_path):
    save(tmp_path / "in" / "a.png", 10)
    (tmp_path / "in" / "run.json").write_text('{"anything": 1}')
    summary = run_folder(tmp_path / "in", tmp_path / "out", formats=())
    assert summary.record.counts.fields == 1


def test_what_is_passed_over_copied_and_stated_is_in_the_warnings(tmp_path):
    folder = tmp_path / "in" / "s"
    save(folder / "0.png", 0)
    save(folder / "0 - Copy.png", 0)
    save(folder / "@eaDir" / "0.png" / "THUMB.png", 0)
    os.link(folder / "0.png", folder / "hard.png")
    (folder / "IMG.MOV").write_bytes(b"x")
    pixels = np.full((40, 48, 3), 200, np.uint8)
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    tifffile.imwrite(folder / "1.ome.tif", pixels, photometric="rgb", metadata=metadata)
    summary = run_folder(tmp_path / "in", tmp_path / "out", formats=())
    assert summary.record.counts.fields == 3
    text = "\n".join(summary.record.warnings)
    for expected in (
        "no images by their endings: 1 .mov",
        "folders of the system or of a NAS: @eaDir (1)",
        "hard.png (of 0.png)",
        "1 pictures are copies, equal to the byte",
        "s/0 - Copy.png = s/0.png",
        "1 fields state their scale themselves, by PhysicalSize of OME",
    ):
        assert expected in text
