"""Packs that must open, and packs that must not."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from rbc_engine.errors import PackError
from rbc_engine.packs.manifest import FILES, Manifest
from rbc_engine.packs.pack import MANIFEST_NAME, Pack, find_pack, shipped_packs
from rbc_engine.types.kinds import Kind

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from .pack_edits import put


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
    edit(pack_copy, r"^schema = 1$", "schema = 3")
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


@pytest.mark.parametrize(
    ("pattern", "replacement", "says"),
    [
        (r"^schema = 1$", f"schema = {'9' * 5000}", "not valid TOML"),
        (r"^schema = 1$", f"schema = {'9' * 4000}", "schema"),
        (r"^bytes = .*$", f"bytes = {'9' * 4000}", "bytes"),
        (r"^short_side_px = .*$", "short_side_px = 99999999999999999999", "short_side_px"),
        (r"^background_level = .*$", "background_level = inf", "background_level"),
        (r"^window_margin = .*$", "window_margin = nan", "window_margin"),
        (r"^std_rgb = \[$", "std_rgb = [ inf,", "std_rgb"),
        (r"^description = .*$", 'description = "a\\\\u001b]0;owned"', "no control characters"),
        (r"^description = .*$", 'description = "a\\\\u202egnp.exe"', "no control characters"),
        (r"^licence = .*$", 'licence = "MIT\\\\nfree"', "no control characters"),
        (r"^\[training\]$", f"[training]\nn = {'9' * 4000}", "training.n"),
        (r"^\[training\]$", "[training]\nn = nan", "training.n"),
        (r"^\[accuracy\]$", '[accuracy]\n"\\\\u001b[2J" = 1', "accuracy"),
        (r"^\[accuracy\]$", '[accuracy]\nx = "\\\\u2066"', "accuracy.x"),
    ],
)
def test_odd_numbers_and_texts_are_refused_and_not_printed(
    pack_copy: Path, pattern: str, replacement: str, says: str
) -> None:
    edit(pack_copy, pattern, replacement)
    with pytest.raises(PackError, match=says) as caught:
        Pack.open(pack_copy)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


CELLS = """kinds = ["red", "white_cell"]
unit = "cell"
touching = 0.95
cell_canvas_px = 27.5
"""
CELLS_OF_TWO_KINDS = 'kinds = ["red", "white_cell"]\n[classifier]'
RATES = """threshold = 0.5
[caller.sensitivity]
value = 0.95
successes = 190
trials = 200
[caller.specificity]
value = 0.9
successes = 180
trials = 200
"""


def test_a_pack_says_what_it_finds_and_how_often_it_errs(pack_copy: Path) -> None:
    """Packs of schema 1 say nothing of it."""

    def manifest_of(pack: Path) -> Manifest:
        # The networks of the copy find one kind, and so the pack as a whole does not open.
        return Manifest.model_validate(tomllib.loads((pack / MANIFEST_NAME).read_text()))

    manifest = Pack.open(pack_copy).manifest
    assert (manifest.detector.kinds, manifest.detector.unit) == (("red",), "region")
    assert manifest.classifier.unsure_below is manifest.caller.sensitivity is None
    assert manifest.classifier.whole_up_to == 4
    edit(pack_copy, r"^schema = 1$", "schema = 2")
    edit(pack_copy, r"^\[detector\]$", f"[detector]\n{CELLS}")
    edit(pack_copy, r"^\[classifier\]$", "[classifier]\nwhole_up_to = 3\nunsure_below = 0.4")
    edit(pack_copy, r"^\[caller\]\nthreshold = .*$", f"[caller]\n{RATES}")
    manifest = manifest_of(pack_copy)
    assert manifest.detector.kind_numbers.tolist() == [Kind.RED, Kind.WHITE_CELL]
    assert (manifest.detector.unit, manifest.detector.touching) == ("cell", 0.95)
    assert (manifest.classifier.whole_up_to, manifest.classifier.unsure_below) == (3, 0.4)
    assert manifest.caller.specificity.trials == 200


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('["red", "white_cell"]', "[]", "kinds"),
        ('["red", "white_cell"]', '["red", "lymphocyte"]', "kinds"),
        ('["red", "white_cell"]', '["white_cell"]', "kinds must name red"),
        ('["red", "white_cell"]', '["red", "red"]', "must not repeat"),
        ('"cell"', '"clump"', "unit"),
        ("0.95\ncell", "0.0\ncell", "touching"),
        ("27.5", "nan", "cell_canvas_px"),
        ("successes = 190", "successes = 201", "must not exceed trials"),
        ("value = 0.95", "value = 0.55", "value must be successes over trials, 0.9500"),
        ("trials = 200\n[caller.sp", "trials = 0\n[caller.sp", "trials"),
        (RATES[RATES.index("[caller.specificity]") :], "", "must be given together"),
        ("value = 0.9\nsuccesses = 180", "value = 0.01\nsuccesses = 2", "sum to more than 1"),
    ],
)
def test_kinds_and_rates_that_cannot_be_are_refused(
    pack_copy: Path, old: str, new: str, says: str
) -> None:
    assert old in CELLS + RATES
    edit(pack_copy, r"^\[detector\]$", f"[detector]\n{CELLS.replace(old, new)}")
    edit(pack_copy, r"^\[caller\]\nthreshold = .*$", f"[caller]\n{RATES.replace(old, new)}")
    with pytest.raises(PackError, match=says):
        Pack.open(pack_copy)


def test_external_tensors_are_refused(pack_copy: Path) -> None:
    model = onnx.load(pack_copy / "box_head.onnx")
    onnx.save(model, pack_copy / "box_head.onnx", save_as_external_data=True, location="secret.bin")
    data = (pack_copy / "box_head.onnx").read_bytes()
    put(pack_copy, "box_head.onnx", data)
    with pytest.raises(PackError, match="other files"):
        Pack.open(pack_copy)


@pytest.mark.parametrize(
    ("pattern", "replacement", "says"),
    [
        (r"^feature_channels = 128$", "feature_channels = 64", "features_0 of detector.onnx"),
        (r"^kinds = .*$|^\[classifier\]$", CELLS_OF_TWO_KINDS, "class_logits of box_head.onnx"),
        (r"^roi_size = 7$", "roi_size = 8", "box_head.onnx"),
        (r"^anchor_aspect_ratios = \[$", "anchor_aspect_ratios = [ 0.7,", "objectness_0"),
        (r"^short_side_px = 320$", "short_side_px = 4096", "would take 16.0 GiB"),
    ],
)
def test_networks_that_do_not_fit_the_manifest_are_one_pack_error(
    pack_copy: Path, pattern: str, replacement: str, says: str
) -> None:
    edit(pack_copy, pattern, replacement)
    with pytest.raises(PackError, match=says):
        Pack.open(pack_copy)


def test_a_network_that_takes_all_memory_is_refused(pack_copy: Path) -> None:
    """Small in bytes, and huge once it runs."""
    model = onnx.load(pack_copy / "classifier.onnx")
    first = model.graph.node[0]
    grown = onnx.helper.make_node(
        "Resize", ["patches", "", "scales"], ["grown"], mode="nearest", name="grow"
    )
    first.input[0] = "grown"
    model.graph.node.insert(0, grown)
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 40, 40], np.float32), "scales")
    model.graph.initializer.append(scales)
    put(pack_copy, "classifier.onnx", model.SerializeToString())
    with pytest.raises(PackError, match=r"classifier\.onnx would take [0-9.]+ GiB"):
        Pack.open(pack_copy)


def test_unknown_pack_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"chula12.*packs list"):
        find_pack(tmp_path / "nothing")
