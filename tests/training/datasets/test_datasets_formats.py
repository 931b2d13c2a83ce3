"""Rendered smears in every format give back their truth; boxes of cells become regions; names
become types.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rbc_engine.errors import UsageError
from rbc_engine.sources.synthetic.drawn_cells import TYPES
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.datasets.formats.boxes import group_overlapping
from rbc_engine.training.datasets.formats.table import FORMATS, load_dataset

from ...boxes import overlap
from ..fake_datasets import (
    HEIGHT,
    WIDTH,
    cell_names,
    render_fields,
    voc_xml,
    write_coco,
    write_masks,
    write_smears,
    write_synthetic,
    write_types,
    write_voc,
)

WRITERS = {"voc": write_voc, "coco": write_coco, "masks": write_masks}


@pytest.fixture(scope="module")
def rendered():
    return render_fields(groups=3, fields_per_group=1)


def chains(boxes: list) -> set[frozenset[int]]:
    """The slow, obvious way: sets that share an overlap are joined until none is left to join."""
    sets = [{index} for index in range(len(boxes))]
    joined = True
    while joined:
        joined = False
        for a in sets:
            for b in sets:
                if a is not b and any(overlap(boxes[i], boxes[j]) for i in a for j in b):
                    a |= b
                    sets.remove(b)
                    joined = True
                    break
            if joined:
                break
    return set(map(frozenset, sets))


side = st.integers(1, 6)
box = st.tuples(st.integers(0, 20), st.integers(0, 20), side, side)


@settings(max_examples=60, deadline=None)
@given(st.lists(box, max_size=12))
def test_boxes_are_grouped_as_by_hand(drawn):
    boxes = [(x, y, x + w, y + h) for x, y, w, h in drawn]
    region = group_overlapping(np.array(boxes, np.float32).reshape(-1, 4))
    groups = {frozenset(np.flatnonzero(region == r).tolist()) for r in set(region.tolist())}
    assert groups == chains(boxes)
    assert sorted(set(region.tolist())) == list(range(len(groups)))


@pytest.mark.parametrize("data_format", ["voc", "coco"])
def test_cells_whose_boxes_overlap_are_one_region(tmp_path, rendered, data_format):
    WRITERS[data_format](tmp_path, rendered)
    dataset = load_dataset(tmp_path, data_format=data_format, threads=1)
    assert dataset.name == data_format
    assert dataset.types == TYPES
    assert dataset.abnormal == TYPES[1:]
    assert [field.path.name for field in dataset.fields] == ["0.png", "1.png", "2.png"]
    several = 0
    for field, truth in zip(dataset.fields, rendered, strict=True):
        boxes = truth.cell_boxes.tolist()
        expected = {}
        for members in chains(boxes):
            corners = np.array([boxes[i] for i in members])
            union = (*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0))
            expected[union] = (len(members), {cell_names(truth)[i] for i in members})
        got = {
            tuple(box): (int(count), {TYPES[kind] for kind in np.flatnonzero(has)})
            for box, count, has in zip(field.boxes.tolist(), field.cells, field.types, strict=True)
        }
        assert got == expected
        assert field.known.all()
        assert field.labelled
        assert len(field.centres) == len(boxes)
        several += int((field.cells > 1).sum())
    assert several > 3, "the fields must have regions of several cells, or nothing was tried"


CELLS = [
    ("rbc", (10, 10, 40, 40)),
    ("RBC", (100, 100, 130, 130)),
    ("Sickle-Cell", (129, 100, 160, 120)),
    ("WBC", (20, 20, 90, 90)),
    ("platelets", (200, 200, 210, 210)),
    ("sickle cell", (250, 10, 280, 30)),
]


def one_image(folder, cells):
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    pixels = render_field(seed=1, width=WIDTH, height=HEIGHT, cells=8).pixels
    Image.fromarray(pixels).save(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations" / "a.xml").write_text(voc_xml(cells))


def load_one(folder, data_format="voc"):
    dataset = load_dataset(folder, data_format=data_format, threads=1)
    (field,) = dataset.fields
    return dataset, field


def test_cells_of_no_type_leave_their_region_unknown(tmp_path):
    one_image(tmp_path, CELLS)
    (tmp_path / "types.toml").write_text('types = ["normal", "sickle_cell"]\n')
    dataset, field = load_one(tmp_path)
    assert dataset.abnormal == ()
    assert field.boxes.tolist() == [[10, 10, 40, 40], [100, 100, 160, 130], [250, 10, 280, 30]]
    assert field.cells.tolist() == [1, 2, 1]
    assert field.isolated.tolist() == [True, False, True]
    assert field.known.tolist() == [False, False, True]
    assert field.types.tolist() == [[False, False], [False, True], [False, True]]
    assert field.centres.tolist() == [[25, 25], [115, 115], [144.5, 110], [265, 20]]


def test_bccd_needs_no_file_of_names(tmp_path):
    one_image(tmp_path, [cell for cell in CELLS if "ickle" not in cell[0]])
    dataset, field = load_one(tmp_path)
    assert dataset.types == ()
    assert len(field.boxes) == 2
    assert not field.known.any()
    assert field.types.shape == (2, 0)


def test_boxes_may_pass_the_edge_by_a_pixel(tmp_path):
    one_image(tmp_path, [("RBC", (-1, 0, 30, 30)), ("RBC", (300, 200, WIDTH + 1, HEIGHT + 0.5))])
    _, field = load_one(tmp_path)
    assert field.boxes.tolist() == [[0, 0, 30, 30], [300, 200, WIDTH, HEIGHT]]


def test_an_annotation_without_objects_is_a_field_without_cells(tmp_path):
    one_image(tmp_path, [])
    _, field = load_one(tmp_path)
    assert field.boxes.shape == (0, 4)
    assert field.labelled


def test_images_without_an_annotation_are_left_out_and_noted(tmp_path):
    one_image(tmp_path, CELLS[:1])
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(b"never read")
    dataset, _ = load_one(tmp_path)
    assert any("1 images without an annotation are left out (b.jpg)" in n for n in dataset.notes)


@pytest.mark.parametrize("data_format", ["voc", "coco", "masks"])
def test_smears_are_those_of_the_table_or_each_image_its_own(tmp_path, rendered, data_format):
    WRITERS[data_format](tmp_path, rendered)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    alone = load_dataset(tmp_path, data_format=data_format, threads=1)
    assert [field.group for field in alone.fields] == names
    assert "no smears.csv" in alone.notes[0]
    write_smears(tmp_path, dict(zip(names, ["s", "t", "s"], strict=True)))
    together = load_dataset(tmp_path, data_format=data_format, threads=1)
    assert [field.group for field in together.fields] == ["s", "t", "s"]
    assert together.notes == ()


def assert_is_truth(field: LabelledField, truth) -> None:
    np.testing.assert_array_equal(field.boxes, truth.boxes)
    np.testing.assert_array_equal(field.types, truth.types)
    np.testing.assert_array_equal(field.cells, truth.cell_counts)
    assert field.known.all()
    assert field.labelled


def test_masks_give_the_regions_that_were_rendered(tmp_path, rendered):
    write_masks(tmp_path, rendered)
    dataset = load_dataset(tmp_path, data_format="masks", threads=2)
    assert dataset.types == TYPES
    assert dataset.abnormal == TYPES[1:]
    for field, truth in zip(dataset.fields, rendered, strict=True):
        assert_is_truth(field, truth)
        assert len(field.centres) == len(truth.boxes)


def test_rows_of_a_mask_add_up(tmp_path):
    """Three squares and a ring; one square is a white cell, one has two rows, one has none."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x in (10, 60, 110):
        mask[10:40, x : x + 30] = 255
    mask[100:150, 100:150] = 255
    mask[110:140, 110:150] = 0  # opens to the right, so that its middle is no pixel of the cell
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    pixels = render_field(seed=1, width=WIDTH, height=HEIGHT, cells=8).pixels
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    Image.fromarray(mask > 0).save(tmp_path / "masks" / "a.png")
    (tmp_path / "types.toml").write_text('types = ["round", "sickle"]\n')
    (tmp_path / "labels.csv").write_text(
        "image,x,y,types\na.png,20,20,round\na.png,30,30,sickle; round\na.png,70,20,wbc\n"
        "a.png,125,125,sickle\n"
    )
    _, field = load_one(tmp_path, "masks")
    assert field.boxes.tolist() == [[10, 10, 40, 40], [110, 10, 140, 40], [100, 100, 150, 150]]
    assert field.cells.tolist() == [3, 0, 1]
    assert field.known.tolist() == [True, False, True]
    assert field.types.tolist() == [[True, True], [False, False], [False, True]]
    assert field.centres.tolist() == [[20, 20], [30, 30], [125, 125]]


def test_synthetic_smears_are_read_as_they_were_written(tmp_path):
    write_synthetic(tmp_path, slides=2)
    dataset = load_dataset(tmp_path, data_format="synthetic", threads=1)
    assert dataset.types == TYPES
    assert dataset.abnormal == TYPES[1:]
    records = json.loads((tmp_path / "truth" / "truth.json").read_text())["fields"]
    for field, record in zip(dataset.fields, records, strict=True):
        truth = render_field(
            seed=record["seed"],
            look_seed=record["look_seed"],
            width=WIDTH,
            height=HEIGHT,
            cells=14,
            cell_px=26,
        )
        assert_is_truth(field, truth)
        centres = (truth.cell_boxes[:, :2] + truth.cell_boxes[:, 2:]) / 2
        np.testing.assert_array_equal(field.centres, centres)
    assert [field.group for field in dataset.fields] == ["slide-1", "slide-2"]


def test_threads_change_nothing(tmp_path, rendered):
    write_coco(tmp_path, rendered)
    one, many = (load_dataset(tmp_path, data_format="coco", threads=n).fields for n in (1, 3))
    assert len(one) == 3
    for a, b in zip(one, many, strict=True):
        assert a.path == b.path
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_coco_reads_the_only_json_and_images_beside_it(tmp_path, rendered):
    write_coco(tmp_path, rendered)
    (tmp_path / "annotations.json").rename(tmp_path / "_annotations.coco.json")
    for path in (tmp_path / "images").iterdir():
        path.rename(tmp_path / path.name)
    dataset = load_dataset(tmp_path, data_format="coco", threads=1)
    assert [field.path.parent for field in dataset.fields] == [tmp_path] * 3


def test_another_format_is_refused(tmp_path):
    write_types(tmp_path)
    with pytest.raises(UsageError, match=r"--format must be one of chula12, .* \(got 'yolo'\)"):
        load_dataset(tmp_path, data_format="yolo")
    assert set(FORMATS) == {"chula12", "masks", "voc", "coco", "boxes", "synthetic"}
