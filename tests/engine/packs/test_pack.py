"""Packs that must open, and packs that must not."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import onnx
import pytest

from rbc_engine.errors import PackError
from rbc_engine.packs.manifest import FILES
from rbc_engine.packs.pack import MANIFEST_NAME, Pack, find_pack, shipped_packs


@pytest.fixture
def pack_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_pack("chula12"), tmp_path / "pack"))


def edit(pack: Path, pattern: str, replacement: str) -> None:
    manifest = pack / MANIFEST_NAME
    text, count = re.subn(pattern, replacement, manifest.read_text(), count=1, flags=re.M)
    assert count == 1, f"{pattern} is not in the manifest"
    manifest.write_text(text)


def test_shipped_pack_is_small_and_opens() -> None:
    folder = shipped_packs()["chula12"]
    pack = Pack.open(folder)
    assert len(pack.types) == 12
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert sum(sizes) < 100e6
    assert max(sizes) < 95e6


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_refused(pack_copy: Path, name: str) -> None:
    data = bytearray((pack_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (pack_copy / name).write_bytes(data)
    with pytest.raises(PackError, match=rf"{name} does not match the sha256"):
        Pack.open(pack_copy)


@pytest.mark.parametrize("change", ["longer", "shorter", "missing"])
def test_wrong_size_is_refused(pack_copy: Path, change: str) -> None:
    path = pack_copy / "caller.treelite"
    data = path.read_bytes()
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(data + b"x" if change == "longer" else data[:-1])
    with pytest.raises(PackError, match=r"caller\.treelite"):
        Pack.open(pack_copy)


def test_newer_version_says_upgrade(pack_copy: Path) -> None:
    edit(pack_copy, r"^schema = 1$", "schema = 2")
    with pytest.raises(PackError, match=r"newer version; upgrade"):
        Pack.open(pack_copy)


@pytest.mark.parametrize(
    ("pattern", "replacement", "says"),
    [
        (r"^name = .*$", 'name = "../evil"', "name"),
        (r"^nms_iou = .*$", "nms_iou = nan", "nms_iou"),
        (r"^max_regions = .*$", "max_regions = 1000000000", "max_regions"),
        (r"^schema = 1$", "schema = 1\nsurprise = 1", "surprise"),
        (r"^schema = 1$", "schema = ", "not valid TOML"),
        (r'"detector\.onnx"', '"../detector.onnx"', "files"),
    ],
)
def test_bad_manifest_names_the_key(
    pack_copy: Path, pattern: str, replacement: str, says: str
) -> None:
    edit(pack_copy, pattern, replacement)
    with pytest.raises(PackError, match=says) as caught:
        Pack.open(pack_copy)
    assert MANIFEST_NAME in str(caught.value)
    assert "\n" not in str(caught.value)


def test_external_tensors_are_refused(pack_copy: Path) -> None:
    model = onnx.load(pack_copy / "box_head.onnx")
    onnx.save(model, pack_copy / "box_head.onnx", save_as_external_data=True, location="secret.bin")
    data = (pack_copy / "box_head.onnx").read_bytes()
    manifest = pack_copy / MANIFEST_NAME
    old = Pack.open(find_pack("chula12")).manifest.files["box_head.onnx"]
    text = manifest.read_text().replace(old.sha256, hashlib.sha256(data).hexdigest())
    manifest.write_text(text.replace(str(old.bytes), str(len(data))))
    with pytest.raises(PackError, match="other files"):
        Pack.open(pack_copy)


def test_unknown_pack_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"chula12.*packs list"):
        find_pack(tmp_path / "nothing")
