"""Chula RBC-12 from a folder: rendered smears with their truth, broken folders, and the real
thing.
"""

from __future__ import annotations

import numpy as np
import pytest

from rbc_engine.errors import UsageError
from rbc_engine.sources.synthetic.drawn_cells import TYPES as RENDERED
from rbc_engine.training.datasets.formats.chula12 import ABNORMAL, TYPES, load_chula12

from ...boxes import ious
from ..fake_chula import NAMES, write_chula


@pytest.fixture
def folder(tmp_path):
    write_chula(tmp_path / "data", groups=2, fields_per_group=1)
    return tmp_path / "data"


def relabel(folder, image, change):
    """Rewrites each line of an image's labels; None drops it."""
    path = folder / "labels" / f"{image}.txt"
    lines = [change(number, line) for number, line in enumerate(path.read_text().splitlines())]
    path.write_text("\n".join(line for line in lines if line is not None))


def test_rendered_truth_is_found(tmp_path):
    truth = write_chula(tmp_path / "data", groups=3, fields_per_group=1)
    dataset = load_chula12(tmp_path / "data", threads=2)
    assert dataset.types == TYPES
    assert dataset.abnormal == ABNORMAL
    assert [field.path.name for field in dataset.fields] == list(truth)
    assert [field.group for field in dataset.fields] == ["0", "1", "2"]
    right_types = total = 0
    for field in dataset.fields:
        rendered = truth[field.path.name]
        assert field.labelled
        assert len(field.centres) == len(rendered.cell_boxes)
        overlaps = ious(rendered.boxes, field.boxes)
        for region, nearest in enumerate(overlaps.argmax(axis=1)):
            expected = {NAMES[RENDERED[kind]] for kind in np.flatnonzero(rendered.types[region])}
            got = {TYPES[kind] for kind in np.flatnonzero(field.types[nearest])}
            right = got == expected and field.known[nearest]
            right_types += overlaps[region, nearest] > 0.7 and bool(right)
            total += 1
    assert right_types / total > 0.9


def test_only_regions_whose_every_cell_has_a_type_are_known(folder):
    before = load_chula12(folder, threads=1).fields[0]
    singles = np.flatnonzero(before.known & (before.cells == 1))
    boxes = before.boxes[singles[:2]]

    def change(number, line):
        x, y, _ = line.split()
        inside = [b[0] <= int(x) < b[2] and b[1] <= int(y) < b[3] for b in boxes]
        if inside[0]:
            return f"{x} {y} 10"  # uncategorised
        return None if inside[1] else line

    relabel(folder, 0, change)
    after = load_chula12(folder, threads=1).fields[0]
    np.testing.assert_array_equal(after.boxes, before.boxes)
    assert after.known[singles[0]] == after.known[singles[1]] == False  # noqa: E712
    assert not after.types[singles[:2]].any()
    assert after.cells[singles[:2]].tolist() == [1, 0]
    others = np.setdiff1d(np.arange(len(before.boxes)), singles[:2])
    np.testing.assert_array_equal(after.types[others], before.types[others])


def test_a_field_without_labels_has_regions_and_no_types(folder):
    (folder / "labels" / "1.txt").unlink()
    field = load_chula12(folder, threads=1).fields[1]
    assert not field.labelled
    assert len(field.boxes) > 5
    assert not field.known.any()
    assert not len(field.centres)


def test_threads_change_nothing(folder):
    one, many = (load_chula12(folder, threads=threads).fields for threads in (1, 3))
    assert len(one) == 2
    for a, b in zip(one, many, strict=True):
        assert a.path == b.path
        for name in ("boxes", "types", "cells", "centres", "known"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_everything_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"lacks images, labels, smears\.csv"):
        load_chula12(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "smears.csv",
            "file,smear_group\n0.jpg,1\n",
            "must have the columns image and smear_group",
        ),
        ("smears.csv", "image,smear_group\n", "names no image"),
        (
            "smears.csv",
            "image,smear_group\n0.jpg,1\n7.jpg,1\n",
            r"images/7\.jpg: cannot be read: No such file",
        ),
        (
            "labels/0.txt",
            "10 10 0\n20 20 13\n",
            r"0\.txt, line 2: .* type 0\.\.12 \(got '20 20 13'\)",
        ),
        ("labels/0.txt", "10 10\n", "line 1: must be x y type"),
        ("labels/0.txt", "10 10 1.5\n", "line 1: must be x y type"),
        ("labels/0.txt", "320 10 1\n", r"line 1: 320 10 must lie in the frame of 320x240 px"),
        ("labels/0.txt", f"3 -{10**30} 1\n", "line 1: 3 -10+ must lie in the frame"),
        ("smears.csv", "image,smear_group\n../0.jpg,1\n", "must be the name of a file in images/"),
    ],
)
def test_broken_files_are_named(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        load_chula12(folder)


def test_every_fault_is_listed_at_once(folder):
    path = folder / "images" / "1.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    (folder / "labels" / "0.txt").write_text("900 10 1\n10 10 99\n")
    (folder / "labels" / "1.txt").write_text("10 10\n")
    with pytest.raises(UsageError) as caught:
        load_chula12(folder, threads=2)
    first, *faults = str(caught.value).splitlines()
    assert first == f"--data {folder} has 4 faults:"
    assert "labels/0.txt, line 2: must be x y type" in faults[0]
    assert "labels/0.txt, line 1: 900 10 must lie in the frame" in faults[1]
    assert "images/1.jpg: damaged JPEG" in faults[2]
    assert "labels/1.txt, line 1: must be x y type" in faults[3]


def test_groups_that_hold_the_same_image_are_noted(folder):
    """The published images have such groups, so that it is no fault here."""
    assert load_chula12(folder, threads=1).notes == ()
    (folder / "images" / "2.jpg").write_bytes((folder / "images" / "0.jpg").read_bytes())
    table = folder / "smears.csv"
    table.write_text(table.read_text() + "2.jpg,1,0\n")
    dataset = load_chula12(folder, threads=1)
    (note,) = dataset.notes
    assert dataset.same_smear == (("0", "1"),)
    assert "smear groups 0 and 1 hold the same image 1 times (0.jpg = 2.jpg)" in note


@pytest.mark.real
@pytest.mark.slow
def test_real_smears(real_data):
    """Counts established with a full-resolution background estimate; this one is coarser."""
    dataset = load_chula12(real_data / "chula12")
    fields = dataset.fields
    assert len(fields) == 582
    assert sum(field.labelled for field in fields) == 495
    single = sum(int((field.known & (field.cells == 1)).sum()) for field in fields)
    several = sum(int((field.known & (field.cells > 1)).sum()) for field in fields)
    in_region = sum(int(field.cells.sum()) for field in fields)
    assert sum(len(field.boxes) for field in fields) == pytest.approx(46677, rel=0.002)
    assert single == pytest.approx(14404, rel=0.002)
    assert several == pytest.approx(922, rel=0.01)
    assert in_region / sum(len(field.centres) for field in fields) > 0.98
