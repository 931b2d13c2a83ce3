"""Broken datasets: each fault is named with its file, and all of them at once."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.check import Faults
from rbc_engine.training.datasets.formats.table import load_dataset

from ..fake_datasets import (
    render_fields,
    write_coco,
    write_masks,
    write_smears,
    write_synthetic,
    write_voc,
)

OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)
LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
ELSEWHERE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Two fields in every format, by format."""
    folder = tmp_path_factory.mktemp("clean")
    fields = render_fields(groups=2, fields_per_group=1)
    write_voc(folder / "voc", fields)
    write_coco(folder / "coco", fields)
    write_masks(folder / "masks", fields)
    (folder / "synthetic").mkdir()
    write_synthetic(folder / "synthetic", slides=2)
    return folder


@pytest.fixture
def copy(clean, tmp_path):
    def make(data_format):
        return shutil.copytree(clean / data_format, tmp_path / data_format)

    return make


def faults_of(folder) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load_dataset(folder, data_format=folder.name, threads=1)
    first, *faults = str(caught.value).splitlines()
    count = f"{len(faults)} faults:" if len(faults) > 1 else "1 fault:"
    assert first == f"--data {folder} has {count}"
    return faults


def only_fault(folder) -> str:
    (fault,) = faults_of(folder)
    return fault


def xml(*objects) -> str:
    body = "".join(OBJECT.format(*o) for o in objects)
    return f"<annotation>{body}</annotation>"


@pytest.mark.parametrize("data_format", ["voc", "coco", "masks", "synthetic"])
def test_clean_data_have_no_fault(copy, data_format):
    assert len(load_dataset(copy(data_format), data_format=data_format, threads=1).fields) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            xml(("normal", 1, 1, 20, 20)),
            "0.xml, object 1: unknown type 'normal' (1 labels have it)",
        ),
        (
            xml(("RBC", 1, 1, 400, 20)),
            "object 1: the box 1 1 400 20 must lie in the frame of 320x240 px",
        ),
        (xml(("RBC", 1, 1, 20, 1e300)), "the box 1 1 20 1e+300 must lie in the frame"),
        (xml(("RBC", 20, 1, 10, 20)), "object 1: the box 20 1 10 20 must lie in the frame"),
        (xml(("RBC", 320, 1, 321, 20)), "its sides at least 1 px"),
        (
            xml(("RBC", "nan", 1, 10, 20)),
            "object 1: needs a name and a bndbox of four finite numbers",
        ),
        (xml(("RBC", "inf", 1, 10, 20)), "four finite numbers"),
        (xml(("", 1, 1, 10, 20)), "object 1: needs a name"),
        ("<annotation><object><name>RBC</name></object></annotation>", "needs a name and a bndbox"),
        ("<html/>", "0.xml: the root must be <annotation> (got <html>)"),
        ("<annotation><object></annotation>", "0.xml: damaged XML"),
        ("", "0.xml: damaged XML"),
        (LAUGHS, "0.xml: must not declare a document type or entities"),
        (ELSEWHERE, "must not declare a document type"),
        (LAUGHS.encode("utf-16"), "must not declare a document type"),
        (
            f"<annotation>{' ' * 2**24}</annotation>",
            "0.xml: larger than the allowed 16777216 bytes",
        ),
        (xml(*[("RBC", 1, 1, 20, 20)] * 2001), "0.png has 2001 boxes, more than 2000"),
    ],
)
def test_voc(copy, content, message):
    folder = copy("voc")
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "annotations" / "0.xml").write_bytes(data)
    assert message in only_fault(folder)


def test_voc_without_images_or_folders(copy):
    folder = copy("voc")
    (folder / "images" / "0.png").unlink()
    assert "annotations/0.xml: images/ lacks its image 0.jpg" in only_fault(folder)
    (folder / "images" / "1.jpg").write_bytes(b"another")
    assert any("images/1.png and 1.jpg have the same stem" in fault for fault in faults_of(folder))
    shutil.rmtree(folder / "annotations")
    (folder / "annotations").mkdir()
    assert any("annotations/ holds no NAME.xml" in fault for fault in faults_of(folder))
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="lacks images/ or JPEGImages/ and annotations/ or Annot"):
        load_dataset(folder, data_format="voc")


def annotation(**changes):
    return {"image_id": 100, "category_id": 7, "bbox": [1, 1, 20, 20], **changes}


def image(**changes):
    return {"id": 300, "file_name": "0.png", **changes}


@pytest.mark.parametrize(
    ("section", "added", "message"),
    [
        ("annotations", annotation(image_id=9), "no image has the id 9"),
        ("annotations", annotation(category_id=99), "no category has the id 99"),
        ("annotations", annotation(iscrowd=1), "iscrowd must be 0"),
        ("annotations", annotation(bbox=[1, 1, 0, 20]), "the box 1 1 1 21 must lie in the frame"),
        ("annotations", annotation(bbox=[1, 1, 1e308, 20]), "must lie in the frame"),
        ("annotations", annotation(bbox=[1, 1, float("nan"), 20]), "bbox.2: Input should be a "
        "finite"),
        ("annotations", annotation(bbox=[1, 1, 20]), "bbox.3: Field required"),
        ("annotations", annotation(bbox="1 1 2 2"), "bbox: Input should be a valid"),
        ("annotations", 7, "Input should be an object"),
        ("images", image(file_name="../0.png"), "file_name must be a path inside the dataset"),
        ("images", image(file_name="/etc/passwd"), "(got '/etc/passwd')"),
        ("images", image(file_name="a/../../0.png"), "file_name must be a path inside"),
        ("images", image(file_name="..\\0.png"), "file_name must be a path inside"),
        ("images", image(file_name="0.png\0"), "file_name must be a path inside"),
        ("images", image(file_name="9.png"), "9.png: cannot be read: No such file"),
        ("images", image(id=100, file_name="../x"), "the image id 100 occurs 2 times"),
        ("images", image(), "the file_name '0.png' occurs 2 times"),
        ("categories", {"id": 7, "name": "other"}, "the category id 7 occurs 2 times"),
        ("categories", {"name": "other"}, "id: Field required"),
    ],
)  # fmt: skip
def test_coco(copy, section, added, message):
    folder = copy("coco")
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    content[section].append(added)
    path.write_text(json.dumps(content))
    assert any(message in fault for fault in faults_of(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "annotations.json: the whole: Invalid JSON"),
        ("[" * 100_000, "annotations.json: the whole: Invalid JSON: recursion limit"),
        ("[]", "annotations.json: the whole: Input should be an object"),
        ('{"images": [], "categories": [], "annotations": []}', "lists no image"),
    ],
)
def test_coco_that_is_none(copy, content, message):
    folder = copy("coco")
    (folder / "annotations.json").write_text(content)
    assert message in only_fault(folder)


def test_coco_needs_one_file(copy):
    folder = copy("coco")
    (folder / "annotations.json").rename(folder / "a.json")
    shutil.copy(folder / "a.json", folder / "b.json")
    with pytest.raises(UsageError, match=r"annotations\.json.*got \['a\.json', 'b\.json'\]"):
        load_dataset(folder, data_format="coco")


def shrink(folder):
    Image.open(folder / "masks" / "0.png").resize((160, 120)).save(folder / "masks" / "0.png")


def repaint(levels):
    def change(folder):
        mask = np.asarray(Image.open(folder / "masks" / "0.png"))
        Image.fromarray(levels(mask)).save(folder / "masks" / "0.png")

    return change


def damage(name):
    def change(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[:500])

    return change


def row(text):
    def change(folder):
        path = folder / "labels.csv"
        path.write_text(path.read_text() + text + "\n")

    return change


def header(text):
    def change(folder):
        path = folder / "labels.csv"
        path.write_text(path.read_text().replace("image,x,y,types,cells", text))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (repaint(np.zeros_like), "masks/0.png: empty mask"),
        (repaint(lambda mask: mask // 255), "masks/0.png: must be black (0) and white (255)"),
        (repaint(lambda mask: np.stack([mask, mask * 0, mask], 2)), "must be black (0) and white"),
        (shrink, "masks/0.png: must be as large as its image, 320x240 px (got 160x120)"),
        (damage("masks/0.png"), "masks/0.png: damaged PNG"),
        (damage("images/0.jpg"), "images/0.jpg: damaged JPEG"),
        (lambda folder: (folder / "masks" / "0.png").unlink(), "lacks the mask 0.png of "
        "images/0.jpg"),
        (row("0.jpg,320,5,granular,1"), "320 5 must lie in the frame of 320x240 px"),
        (row(f"0.jpg,{10**40},5,granular,1"), "5 must lie in the frame"),
        (row("0.jpg,5,5,gran,1"), "unknown type 'gran'"),
        (row("0.jpg,5,5,,1"), "needs whole numbers x and y"),
        (row("0.jpg,5.5,5,granular,1"), "(got x '5.5'"),
        (row("0.jpg,5,5,granular;echinocyte,1"), "no fewer cells than types"),
        (row("0.jpg"), "needs whole numbers x and y"),
        (row("7.jpg,5,5,granular,1"), "images/ lacks the image 7.jpg"),
        (header("image,x,y,type,cells"), "labels.csv must have the columns image and x and y and "
        "types"),
        (lambda folder: (folder / "labels.csv").unlink(), "labels.csv: cannot be read"),
        (lambda folder: (folder / "labels.csv").write_bytes(b"\xff\xfe"), "not a table of "
        "comma-separated"),
    ],
)  # fmt: skip
def test_masks(copy, change, message):
    folder = copy("masks")
    change(folder)
    assert any(message in fault for fault in faults_of(folder))


def test_a_label_beside_every_cell(copy):
    folder = copy("masks")
    mask = np.asarray(Image.open(folder / "masks" / "0.png"))
    y, x = np.argwhere(mask[:20] == 0)[0]
    row(f"0.jpg,{x},{y},granular,1")(folder)
    assert f"at {x} {y} the mask is black, and" in only_fault(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema": 1', '"schema": 2', "schema: Input should be 1"),
        ('"slide-1/field-1.jpg"', '"../field-1.jpg"', "must be SLIDE/FILE (got '../field-1.jpg')"),
        ('"slide-1/field-1.jpg"', '"field-1.jpg"', "must be SLIDE/FILE"),
        ('"slide-1/field-1.jpg"', '"slide-2/field-1.jpg"', "occurs twice"),
        ('"slide-1/field-1.jpg"', '"slide-1/field-9.jpg"', "field-9.jpg: cannot be read"),
        ('"types": [\n  "oval_disc"', '"types": [\n  "disc"', "unknown type 'oval_disc'"),
        ('"cells": 1', '"cells": 0', "greater than or equal to 1"),
    ],
)
def test_synthetic(copy, old, new, message):
    folder = copy("synthetic")
    path = folder / "truth" / "truth.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert any(message in fault for fault in faults_of(folder))


def test_synthetic_boxes_outside_the_frame(copy):
    folder = copy("synthetic")
    path = folder / "truth" / "truth.json"
    content = json.loads(path.read_text())
    content["fields"][0]["regions"][3]["box"] = [0, 0, 1e300, 5]
    content["fields"][1]["cells"][2]["box"] = [-9, 0, 5, 5]
    path.write_text(json.dumps(content))
    first, second = faults_of(folder)
    assert "slide-1/field-1.jpg, region 3: the box 0 0 1e+300 5 must lie in the frame" in first
    assert "slide-2/field-1.jpg, cell 2: the box -9 0 5 5" in second
    with pytest.raises(UsageError, match=r"lacks images and truth/truth\.json; write them with"):
        load_dataset(folder / "truth", data_format="synthetic")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('types = ["Normal"]', "types.toml: types.0: String should match pattern"),
        ('types = ["a"]\nabnormal = ["b"]', "abnormal names ['b'], which are not among types"),
        ('types = ["rbc"]', "must not name the same cell twice (got ['rbc'])"),
        ('typs = ["a"]', "types.toml: typs: Extra inputs are not permitted"),
        ("types = [", "types.toml: not TOML"),
    ],
)
def test_types_toml(copy, content, message):
    folder = copy("voc")
    (folder / "types.toml").write_text(content)
    assert message in only_fault(folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"0.png": "1"}, "smears.csv has no row for the image 1.png"),
        ({"0.png": "1", "1.png": "2", "2.png": "2"}, "names the image 2.png, which has no labels"),
        ({"0.png": "1", "1.png": ""}, "line 3: image and smear_group must not be empty"),
        ({"0.png": "1", "1.png": "1\n1.png,2"}, "line 4: 1.png is in group 1 and in 2"),
    ],
)
def test_smears(copy, rows, message):
    folder = copy("coco")
    write_smears(folder, rows)
    assert any(message in fault for fault in faults_of(folder))


@pytest.mark.parametrize("data_format", ["voc", "coco", "masks"])
def test_the_same_image_under_two_groups(copy, data_format):
    """By its pixels: the second file is of another format."""
    folder = copy(data_format)
    first, second = sorted((folder / "images").iterdir())
    Image.open(first).save(second, format="PNG")
    assert any(
        f"smear groups {first.name} and {second.name} hold the same image" in fault
        for fault in faults_of(folder)
    )
    shutil.copy(
        folder / "masks" / "0.png", folder / "masks" / "1.png"
    ) if data_format == "masks" else None
    write_smears(folder, {first.name: "s", second.name: "s"})
    if data_format != "masks":
        assert len(load_dataset(folder, data_format=data_format, threads=1).fields) == 2


def test_all_faults_are_listed_at_once(copy):
    folder = copy("voc")
    (folder / "types.toml").write_text('types = ["oval_disc"]')
    (folder / "annotations" / "0.xml").write_text(LAUGHS)
    (folder / "annotations" / "1.xml").write_text(
        xml(
            ("oval_disc", 1, 1, 999, 20),
            ("x", 1, 1, 9, 9),
            ("x", 50, 50, 60, 60),
            ("y", 0, 0, 9, "a"),
        )
    )
    damage("images/0.png")(folder)
    write_smears(folder, {"0.png": "1", "5.png": "1"})
    faults = faults_of(folder)
    for message in (
        "0.xml: must not declare a document type",
        "1.xml, object 4: needs a name and a bndbox",
        "1.xml, object 2: unknown type 'x' (2 labels have it)",
        "5.png, which has no labels",
        "no row for the image 1.png",
        "images/0.png: damaged",
        "1.xml, object 1: the box 1 1 999 20",
    ):
        assert sum(message in fault for fault in faults) == 1, message
    assert len(faults) == 7


def test_of_many_faults_the_first_fifty_and_their_number(tmp_path):
    faults = Faults()
    for number in range(60):
        faults.add(f"file {number}\n\x1b[31m{'x' * 1000}")
    lines = str(faults.error(tmp_path)).splitlines()
    assert lines[0].endswith("has 60 faults:")
    assert len(lines) == 52
    assert lines[-1] == "  and 10 more"
    assert all(line.isprintable() and len(line) < 410 for line in lines[1:])
