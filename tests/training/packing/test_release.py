"""A pack is written whole or not at all."""

from __future__ import annotations

import hashlib
import resource
from pathlib import Path

import numpy as np
import pytest

from rbc_engine.errors import OutputError, PackError
from rbc_engine.packs.golden import read_golden
from rbc_engine.packs.manifest import FILES, Manifest
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.training.packing.release import file_records, make_golden, write_pack
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.regions import Regions

SHIPPED = Pack.open(find_pack("chula12"))
CONTENT = {name: SHIPPED.read(name) for name in FILES}


def manifest(**changes: object) -> Manifest:
    values = SHIPPED.manifest.model_dump(by_alias=True) | {
        "schema": 1,
        "name": "small",
        "version": "1.2.3",
        "description": 'Quotes ", backslashes \\ and µm in one line.',
        "training": {"command": "rbc-engine train all", "seed": 7, "whole": True},
        "accuracy": {"ap50": 0.875, "regions": 12},
        "files": file_records(CONTENT),
    }
    return Manifest.model_validate(values | changes)


def test_what_is_written_is_opened(tmp_path: Path):
    folder = tmp_path / "packs" / "small"
    pack = write_pack(folder, manifest=manifest(), files=CONTENT)
    assert pack.folder == folder
    assert Pack.open(folder).manifest == manifest()
    assert sorted(p.name for p in folder.iterdir()) == sorted(["pack.toml", *FILES])
    for name, data in CONTENT.items():
        assert pack.read(name) == (folder / name).read_bytes() == data
        assert pack.manifest.files[name].sha256 == hashlib.sha256(data).hexdigest()
    assert [p.name for p in folder.parent.iterdir()] == ["small"]


def test_an_unknown_scale_is_left_out(tmp_path: Path):
    unknown = SHIPPED.manifest.detector.model_copy(update={"um_per_canvas_px": None})
    pack = write_pack(tmp_path / "small", manifest=manifest(detector=unknown), files=CONTENT)
    assert pack.manifest.detector.um_per_canvas_px is None


def test_a_folder_that_exists_is_left_alone(tmp_path: Path):
    (tmp_path / "small").mkdir()
    with pytest.raises(OutputError, match="exists; remove it"):
        write_pack(tmp_path / "small", manifest=manifest(), files=CONTENT)
    assert not any((tmp_path / "small").iterdir())


@pytest.mark.parametrize("name", ["detector.onnx", "golden.npz"])
def test_files_that_are_not_those_of_the_manifest_leave_nothing(tmp_path: Path, name: str):
    with pytest.raises(PackError, match=name):
        write_pack(tmp_path / "small", manifest=manifest(), files=CONTENT | {name: b"other"})
    incomplete = {key: data for key, data in CONTENT.items() if key != name}
    with pytest.raises(PackError, match=name):
        write_pack(tmp_path / "small", manifest=manifest(), files=incomplete)
    assert not any(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # the kernel fails longer writes
    try:
        with pytest.raises(OutputError, match="free disk space"):
            write_pack(tmp_path / "small", manifest=manifest(), files=CONTENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any(tmp_path.iterdir())


def test_what_a_stopped_run_left_is_no_hindrance(tmp_path: Path):
    (tmp_path / "small.partial").mkdir()
    (tmp_path / "small.partial" / "old").write_bytes(b"old")
    write_pack(tmp_path / "small", manifest=manifest(), files=CONTENT)
    assert [p.name for p in tmp_path.iterdir()] == ["small"]


def test_golden_cases_are_rendered_frames_with_their_answers():
    seen: list[UInt8] = []

    def analyze(frame: UInt8) -> Regions:
        seen.append(frame)
        count = len(seen)
        return Regions.by_area(
            boxes=np.full((count, 4), count, np.float32),
            scores=np.full(count, 0.5, np.float32),
            probabilities=np.full((count, 2), 0.25, np.float32),
            has=np.zeros((count, 2), bool),
            abnormal_p=np.full(count, 0.125, np.float32),
            abnormal=np.zeros(count, bool),
            flags=np.zeros(count, np.uint8),
        )

    cases = read_golden(make_golden(analyze))
    assert len(cases) == len(seen) == 2
    assert cases[0].frame.shape != cases[1].frame.shape
    for index, (case, frame) in enumerate(zip(cases, seen, strict=True), 1):
        np.testing.assert_array_equal(case.frame, frame)
        assert case.expected.boxes.tolist() == [[index] * 4] * index
        assert case.expected.probabilities.shape == (index, 2)
        assert set(case.expected.abnormal_p.tolist()) == {0.125}
    # Rendered, so that no real image goes out with a pack.
    again = render_field(seed=0, width=640, height=480, cells=40, cell_px=38.0).pixels
    np.testing.assert_array_equal(cases[0].frame, again)
