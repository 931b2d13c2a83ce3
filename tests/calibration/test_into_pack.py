"""A calibration written into a pack: at every moment the pack on the disk is whole."""

from __future__ import annotations

import shutil

import pytest

from rbc_engine.calibration import into_pack
from rbc_engine.calibration.into_pack import write_calibration
from rbc_engine.errors import OutputError, PackError
from rbc_engine.packs.calibration import Calibration
from rbc_engine.packs.pack import Pack, find_pack


@pytest.fixture
def pack(tmp_path) -> Pack:
    folder = tmp_path / "pack"
    shutil.copytree(find_pack("chula12"), folder)
    return Pack.open(folder)


def changed(pack: Pack) -> Calibration:
    return pack.calibration.model_copy(update={"verdicts": {}, "notes": {"made": "anew"}})


def test_the_pack_itself(pack: Pack) -> None:
    written = write_calibration(pack, changed(pack), out=None)
    assert written.calibration.notes == {"made": "anew"}
    assert written.sha256 != pack.sha256
    assert written.manifest.model_copy(update={"files": pack.manifest.files}) == pack.manifest


def test_a_copy(pack: Pack, tmp_path) -> None:
    written = write_calibration(pack, changed(pack), out=tmp_path / "copy")
    assert written.folder == tmp_path / "copy"
    assert written.read("classifier.onnx") == pack.read("classifier.onnx")
    assert Pack.open(pack.folder).calibration == pack.calibration
    with pytest.raises(OutputError, match="exists"):
        write_calibration(pack, changed(pack), out=tmp_path / "copy")


@pytest.mark.parametrize("step", [0, 1, 2])
def test_whenever_it_is_stopped_the_pack_is_whole(pack: Pack, step: int, monkeypatch) -> None:
    """Before, between and after its three writes."""
    real, done = into_pack._write, []

    def write(path, data) -> None:
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(path)
        real(path, data)

    monkeypatch.setattr(into_pack, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        write_calibration(pack, changed(pack), out=None)
    left = Pack.open(pack.folder)
    assert left.read("classifier.onnx") == pack.read("classifier.onnx")
    assert left.calibration is None or left.calibration == pack.calibration
    assert (left.calibration is None) == (step > 0)


def test_a_calibration_of_other_networks_is_refused(pack: Pack) -> None:
    network = pack.calibration.networks["detector.onnx"].model_copy(update={"sha256": "0" * 64})
    networks = {**pack.calibration.networks, "detector.onnx": network}
    other = pack.calibration.model_copy(update={"networks": networks})
    with pytest.raises(PackError, match=r"ranges of another detector\.onnx .*calibrate"):
        write_calibration(pack, other, out=None)
