"""Collections of datasets: what is refused, and that what is read is what was drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.formats.table import load_dataset
from rbc_engine.training.datasets.laboratories.base import PLATELET, RED, WHITE_CELL, overlap
from rbc_engine.training.datasets.laboratories.collection import (
    find_collection,
    shipped_collections,
)
from rbc_engine.training.datasets.laboratories.load import load_fields
from rbc_engine.training.datasets.laboratories.sides import is_held_out
from rbc_engine.training.datasets.laboratories.stain import stained_field

from .fake_laboratories import (
    CELL_PX,
    CLOSE_UP,
    COLLECTION,
    close_up,
    edit_boxes,
    first_rows,
    write_boxes,
    write_laboratories,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laboratories")
    write_laboratories(folder)
    return folder


def collection_of(folder: Path, text: str):
    path = folder / "edited.toml"
    path.write_text(text)
    return find_collection(str(path))


def refused(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        collection_of(folder, text)
    return str(caught.value)


def load(folder: Path, *names: str):
    collection = find_collection(str(folder / "fake.toml"))
    return load_fields(collection.to_train(only=names), folder, threads=1, log=lambda line: None)


def test_the_shipped_collection_is_sound():
    assert "laboratories" in shipped_collections()
    collection = find_collection("laboratories")
    by_name = {entry.name: entry for entry in collection.dataset}
    measured = {name for name, entry in by_name.items() if entry.use == "measure"}
    assert measured == {"iml", "bbbc041", "uganda_phone"}
    trained = {entry.name for entry in collection.to_train()}
    assert trained == set(by_name) - measured
    assert all(by_name[name].attribution for name in by_name)
    assert by_name["raabin"].only.admits(575)
    assert not by_name["barcelona"].only.admits(575)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('wbc = "white_cell"', 'wbc = "elephant"', "got the kind 'elephant', which no pack has"),
        ('path = "labs/plain"', 'path = "../labs/plain"', "must be a folder below --data"),
        ('path = "labs/plain"', 'path = "/labs/plain"', "must be a folder below --data"),
        ('path = "labs/forbidden"', 'path = "labs/plain"', "both to train on and to measure on"),
        ('name = "plain"', 'name = "white"', "a name of its own"),
        ('use = "measure"', 'use = "sell"', "use: Input should be 'train' or 'measure'"),
        ("weight = 0.4", "weight = nan", "weight"),
        ("weight = 0.4", "weight = 0", "weight"),
        ('middle = "other"', 'kinds = { rbc = "red" }', "is for them only"),
        (
            'format = "pictures"',
            'format = "boxes"',
            "kinds gives the meaning of the labels of boxes",
        ),
        ("schema = 1", "schema = 2", "schema"),
        ("schema = 1", "schema = ", "not TOML"),
        ("healthy = true", "helthy = true", "helthy"),
    ],
)
def test_a_faulty_collection_is_refused(tmp_path: Path, old: str, new: str, message: str):
    assert old in COLLECTION
    assert message in refused(tmp_path, COLLECTION.replace(old, new, 1))


def test_measure_only_trains_nothing(tmp_path: Path):
    collection = collection_of(tmp_path, COLLECTION)
    assert [entry.name for entry in collection.to_train()] == ["typed", "white", "plain", "donors"]
    with pytest.raises(UsageError, match=r"forbidden is marked measure-only .*none stated.*train"):
        collection.to_train(only=["plain", "forbidden"])
    with pytest.raises(UsageError, match=r"--without must name datasets .* got nobody"):
        collection.to_train(without=["nobody"])
    with pytest.raises(UsageError, match="nothing left to train on"):
        collection.to_train(only=["plain"], without=["plain"])
    with pytest.raises(UsageError, match=r"--collection must be one of laboratories .*'nowhere'"):
        find_collection("nowhere")


def test_cells_are_read_as_drawn(data: Path):
    loaded = load(data, "white", "plain")
    assert loaded.typed is None
    fields = {field.path.name: field for field in loaded.fields}
    for number in range(6):
        field = fields[f"white-{number}.png"]
        _, rows = close_up(100 + number, white=True)
        assert field.laboratory == "white"
        assert sorted(field.kinds) == sorted(
            {"rbc": RED, "wbc": WHITE_CELL, "platelet": PLATELET}[row[4]] for row in rows
        )
        np.testing.assert_allclose(field.boxes, [row[:4] for row in rows], atol=0.01)
        assert 0.85 * CELL_PX < field.cell_px < 1.25 * CELL_PX
        assert (field.stain.density > 0).all()
        # Of what is drawn, nothing else stands out from the background.
        assert len(field.unknown) <= 2
    # A laboratory without white cells is as good as any.
    assert all((f.kinds == RED).all() for f in loaded.fields if f.laboratory == "plain")


def test_what_no_box_covers_is_unknown(tmp_path: Path):
    write_laboratories(tmp_path)
    lost = {}

    def forget(content):
        for name, rows in content.items():
            lost[name] = rows.pop(0)

    edit_boxes(tmp_path / "labs/plain", forget)
    fields = load(tmp_path, "plain").fields
    assert len(fields) == len(lost) > 0
    for field in fields:
        box = np.array([lost[field.path.name][:4]], np.float32)
        assert not len(field.boxes) or overlap(box, field.boxes).max() < 0.5
        assert overlap(box, field.unknown).max() > 0.4


def test_red_twins_of_white_cells_are_dropped(tmp_path: Path):
    write_laboratories(tmp_path)

    def twins(content):
        for rows in content.values():
            white = next(row for row in rows if row[4] == "wbc")
            rows.append([white[0] + 2, *white[1:4], "rbc"])

    before = {f.path.name: f for f in load(tmp_path, "white").fields}
    edit_boxes(tmp_path / "labs/white", twins)
    fields = load(tmp_path, "white").fields
    assert len(fields) == len(before) > 0
    for field in fields:
        np.testing.assert_array_equal(field.boxes, before[field.path.name].boxes)


def test_parasites_are_red_and_others_unknown(tmp_path: Path):
    write_laboratories(tmp_path)

    def rename(content):
        rows = first_rows(content)
        rows[0][4], rows[1][4] = "parasite", "other"

    edit_boxes(tmp_path / "labs/white", rename)
    field = min(load(tmp_path, "white").fields, key=lambda f: f.path.name)
    _, rows = close_up(100, white=True)
    assert field.kinds[0] == RED
    np.testing.assert_allclose(field.boxes[0], rows[0][:4], atol=0.01)
    np.testing.assert_allclose(field.unknown[0], rows[1][:4], atol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.append([1, 2, 30, 40, "elephant"]),
            "unknown kind 'elephant'; state its meaning in",
        ),
        (lambda rows: rows.append([1, 2, float("nan"), 40, "rbc"]), "needs four finite numbers"),
        (lambda rows: rows.append([1, 2, float("inf"), 40, "rbc"]), "needs four finite numbers"),
        (lambda rows: rows.append([1, 2, True, 40, "rbc"]), "needs four finite numbers"),
        (lambda rows: rows.append([1, 2, 3, "rbc"]), "needs four finite numbers and a label"),
        (lambda rows: rows.append([30, 2, 1, 40, "rbc"]), "must lie in the frame"),
        (lambda rows: rows.append([1, 2, 900, 40, "rbc"]), "must lie in the frame of 160x150"),
    ],
)
def test_faulty_boxes_are_refused(tmp_path: Path, change, message: str):
    write_laboratories(tmp_path)
    edit_boxes(tmp_path / "labs/plain", lambda content: change(first_rows(content)))
    with pytest.raises(UsageError, match="has 1 fault") as caught:
        load(tmp_path, "plain")
    assert message in str(caught.value)
    assert "plain-0.png, box 9" in str(caught.value)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "a/b.png", "", "nothing.png"])
def test_images_outside_the_folder_are_refused(tmp_path: Path, name: str):
    write_laboratories(tmp_path)
    edit_boxes(tmp_path / "labs/plain", lambda content: {**content, name: []})
    with pytest.raises(UsageError, match="has 1 fault"):
        load(tmp_path, "plain")


def test_no_json_and_no_folder_are_refused(tmp_path: Path):
    write_laboratories(tmp_path)
    (tmp_path / "labs/plain/boxes.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        load(tmp_path, "plain")
    (tmp_path / "labs/plain/boxes.json").write_text("[]")
    with pytest.raises(UsageError, match="must map the name of each image"):
        load(tmp_path, "plain")
    (tmp_path / "labs/plain/boxes.json").unlink()
    with pytest.raises(UsageError, match=r"lacks boxes\.json"):
        load(tmp_path, "plain")
    (tmp_path / "labs/plain").rename(tmp_path / "labs/elsewhere")
    with pytest.raises(UsageError, match=r"lacks the folder labs/plain .*--without plain"):
        load(tmp_path, "plain")


def test_pictures_give_round_red_cells_and_an_unknown_middle(data: Path):
    fields = load(data, "donors").fields
    assert fields
    for field in fields:
        _, rows = close_up(400 + int(field.path.stem[-1]), white=True)
        true = np.array([row[:4] for row in rows if row[4] == "rbc"], np.float32)
        assert len(field.boxes) >= 1
        assert (overlap(field.boxes, true).max(axis=1) > 0.6).all()
        centre = np.tile(np.array(CLOSE_UP) / 2, 2)
        middle = (centre + np.array([-26, -26, 26, 26]))[None]
        assert overlap(middle.astype(np.float32), field.boxes).max() < 0.1


def test_typed_fields_have_known_single_cells_and_the_rest_unknown(data: Path):
    loaded = load(data, "typed")
    assert loaded.typed is not None
    assert len(loaded.fields) == len(loaded.typed.fields)
    for field in loaded.fields:
        assert field.labels is not None
        one = field.labels.known & field.labels.isolated
        np.testing.assert_array_equal(field.boxes, field.labels.boxes[one])
        np.testing.assert_array_equal(field.unknown, field.labels.boxes[~one])


def test_only_images_of_a_width_and_copies_on_one_side(tmp_path: Path):
    write_laboratories(tmp_path)
    write_boxes(tmp_path / "labs/plain2", fields=2, white=False, first_seed=500)
    folder = tmp_path / "labs/plain"
    for name in ("x.png", "y.png"):
        (folder / "images" / name).write_bytes((folder / "images/plain-0.png").read_bytes())
    edit_boxes(folder, lambda c: {**c, "x.png": c["plain-0.png"], "y.png": c["plain-0.png"]})
    fields = {field.path.name: field for field in load(tmp_path, "plain").fields}
    assert fields["x.png"].group == fields["y.png"].group == fields["plain-0.png"].group
    assert fields["plain-1.png"].group == "plain-1.png"
    narrow = COLLECTION.replace(
        'kinds = { rbc = "red" }', 'kinds = {rbc = "red"}\nonly = {width_px = 7}', 1
    )
    (tmp_path / "fake.toml").write_text(narrow)
    with pytest.raises(UsageError, match="has no image of the dataset plain"):
        load(tmp_path, "plain")


def test_held_out_by_name_alone():
    entry = find_collection("laboratories").dataset[-4]
    names = [f"{number}.jpg" for number in range(4000)]
    share = np.mean([is_held_out(entry, name) for name in names])
    assert 0.9 / entry.held_out_one_in < share < 1.1 / entry.held_out_one_in


def test_a_uniform_picture_and_a_dark_one_have_no_cells():
    for level in (0, 128, 255):
        found = stained_field(np.full((64, 80, 3), level, np.uint8))
        assert found.cell_px is None
        assert np.isfinite(found.stain.density).all()
        assert (found.stain.density > 0).all()


def test_stain_is_that_of_the_rendered_cells():
    pixels, _ = close_up(7, white=False)
    darker = (pixels * np.array([1.0, 0.8, 1.0])).astype(np.uint8)
    plain, tinted = stained_field(pixels).stain, stained_field(darker).stain
    np.testing.assert_allclose(tinted.background / plain.background, [1, 0.8, 1], atol=0.01)
    # Light of another colour is no other density.
    np.testing.assert_allclose(tinted.density, plain.density, rtol=0.05)


def test_boxes_are_a_format_of_regions_too(data: Path):
    dataset = load_dataset(data / "labs/white", data_format="boxes", threads=1)
    assert dataset.types == ()
    for number, field in enumerate(dataset.fields):
        _, rows = close_up(100 + number, white=True)
        assert len(field.centres) == sum(row[4] == "rbc" for row in rows)
    assert json.loads((data / "labs/white/boxes.json").read_text())


def test_clear_and_lone_cells(data: Path):
    field = load(data, "plain").fields[0]
    boxes = np.array([[0, 0, 20, 20], [30, 30, 60, 60], [50, 50, 80, 80], [90, 90, 110, 150]])
    field = replace(field, boxes=boxes.astype(np.float32), kinds=np.zeros(4, np.uint8))
    assert field.clear().tolist() == [False, True, True, False]
    assert field.lone().tolist() == [True, False, False, True]
