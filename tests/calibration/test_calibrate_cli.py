"""`rbc-engine calibrate` from the command line: real fields in, a whole pack out, and what it
refuses.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rbc_engine.calibration.histogram import Histogram
from rbc_engine.calibration.ranges import ranges_by
from rbc_engine.devices.cpu.device import host_precisions
from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.synthetic.field import render_field


def calibrate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rbc_engine", "calibrate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def fields(tmp_path_factory) -> Path:
    """Nine small fields of three smears."""
    folder = tmp_path_factory.mktemp("fields")
    for smear in range(3):
        (folder / f"smear-{smear}").mkdir()
        for index in range(3):
            seed = 10 * smear + index
            pixels = render_field(seed=seed, width=256, height=192, cells=6).pixels
            Image.fromarray(pixels).save(folder / f"smear-{smear}" / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def pack_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "pack"
    shutil.copytree(find_pack("chula12"), folder)
    return folder


@pytest.mark.slow
def test_images_give_ranges_and_no_verdict(fields, pack_folder, tmp_path) -> None:
    if "int8" not in host_precisions():
        assert "int8" in calibrate(pack_folder, "--data", fields, "--format", "images").stderr
        return
    before = Pack.open(pack_folder)
    out = tmp_path / "calibrated"
    done = calibrate(
        pack_folder, "--data", fields, "--format", "images", "--fields", 9, "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert "calibrated in" in done.stderr
    made = Pack.open(out)
    assert made.calibration is not None
    assert made.calibration.verdicts == {}
    assert made.calibration.notes["fields"] == 9
    for name, network in made.calibration.networks.items():
        assert network.error[network.method] == min(network.error.values()) < 0.2, name
        # What flows through the shipped pack's layers is of the size that its own calibration saw.
        own = before.calibration.networks[name].ranges
        assert network.ranges.keys() == own.keys()
        ratios = [network.ranges[tensor] / own[tensor] for tensor in own]
        assert 0.3 < np.median(ratios) < 1.5
    assert Pack.open(pack_folder).sha256 == before.sha256

    drift = calibrate(out, "--data", fields, "--drift", "cpu:fp32", "cpu:int8", "--json")
    record = json.loads(drift.stdout)
    assert record["fields"] == 9
    assert record["regions"] > 20
    assert record["lost"] + record["gained"] <= 0.1 * record["regions"]
    assert 0 < record["largest_p"] < 0.5
    same = json.loads(
        calibrate(out, "--data", fields, "--drift", "cpu:fp32", "cpu:fp32", "--json").stdout
    )
    assert (same["lost"], same["gained"], same["moved"], same["largest_p"]) == (0, 0, 0, 0.0)


def test_too_few_fields(fields, pack_folder) -> None:
    done = calibrate(pack_folder, "--data", fields, "--format", "images", "--fields", 3)
    assert done.returncode == 2
    assert "at least 8 fields (got 9, --fields 3)" in done.stderr


def test_fields_without_cells(pack_folder, tmp_path) -> None:
    for index in range(8):
        Image.new("RGB", (256, 192), (250, 250, 250)).save(tmp_path / f"{index}.png")
    before = (pack_folder / "pack.toml").read_bytes()
    done = calibrate(pack_folder, "--data", tmp_path, "--format", "images")
    assert done.returncode == 2
    assert "finds no cell in any of 8 fields" in done.stderr
    assert (pack_folder / "pack.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("way", "says"),
    [("cpu", "DEVICE:PRECISION"), ("tpu:int8", "--device must be"), ("cpu:int4", "--precision")],
)
def test_wrong_ways(fields, pack_folder, way: str, says: str) -> None:
    done = calibrate(pack_folder, "--data", fields, "--drift", "cpu:fp32", way)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_device_that_cannot_be_tested_is_refused_at_once(fields, pack_folder) -> None:
    for device, code, says in (
        ("tpu", 2, "--device must be cpu, cuda or cuda:N"),
        ("cuda:7", 1, "--device cuda:7: "),
    ):
        done = calibrate(pack_folder, "--data", fields, "--format", "images", "--device", device)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
        assert "observed" not in done.stderr


@pytest.mark.parametrize(
    ("values", "says"), [([0.0, 0.0], "always zero"), ([1.0, np.inf], "infinite")]
)
def test_a_tensor_without_a_range(values, says: str) -> None:
    histogram = Histogram()
    histogram.add(np.array(values, np.float32))
    with pytest.raises(UsageError, match=f"tensor relu_3 was {says}"):
        ranges_by({"relu_3": histogram}, "max")
