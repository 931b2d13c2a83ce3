"""Pictures of the regions: what is drawn where, and under which names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.atomic_folder import file_name
from rbc_engine.sinks.formats.overlay.drawing import (
    ABNORMAL_RGB,
    NORMAL_RGB,
    UNSURE_RGB,
    OverlayStyle,
    draw_overlay,
)
from rbc_engine.sinks.formats.overlay.labels import place_labels
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.own_files import OWN_FILES
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.frames import Frame
from rbc_engine.types.regions import RegionFlag, Regions

GRAY = 128


def make_regions(boxes, *, abnormal, has=None, flags=0):
    count = len(boxes)
    has = np.array(has or [[True, False, False]] * count)
    return Regions.by_area(
        boxes=np.array(boxes, np.float32).reshape(count, 4),
        scores=np.linspace(1, 0.5, count, dtype=np.float32),
        probabilities=np.where(has, 0.9, 0.25).astype(np.float32),
        has=has,
        abnormal_p=np.array(abnormal, np.float32),
        abnormal=np.array(abnormal, np.bool_),
        flags=np.full(count, flags, np.uint8),
    )


def draw(regions, pack, *, width=640, height=480, **more):
    pixels = np.full((height, width, 3), GRAY, np.uint8)
    return np.asarray(draw_overlay(pixels, regions, style=OverlayStyle.of(pack), **more))


def with_frame(result, *, width=160, height=120):
    pixels = np.full((height, width, 3), GRAY, np.uint8)
    return dataclasses.replace(result, frame=Frame(pixels=pixels))


def files(folder):
    return sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and p.name != OWN_FILES
    )


def write(out, pack, results, **options):
    with RunOutput(claim(out, **options), pack, formats=["overlay"]) as output:
        assert output.needs_frames
        for result in results:
            output.write(with_frame(result))
        output.finish(RunRecord.of(pack))


def test_boxes_are_drawn_just_inside_their_pixels(toy_pack):
    boxes = [(100, 100, 200, 180), (300, 50, 420, 150)]
    picture = draw(make_regions(boxes, abnormal=[0, 1]), toy_pack)
    assert picture.shape[:2] > (480, 640)
    for (x0, y0, x1, y1), colour in zip(boxes, (NORMAL_RGB, ABNORMAL_RGB), strict=True):
        outline = np.concatenate(
            [picture[y0:y1, x0], picture[y0:y1, x1 - 1], picture[y0, x0:x1], picture[y1 - 1, x0:x1]]
        )
        assert (outline == colour).all()
        assert (picture[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] == GRAY).all()
    assert (picture[200:480, :300] == GRAY).all()


def test_what_the_border_cuts_is_dashed(toy_pack):
    regions = make_regions([(200, 0, 300, 90)], abnormal=[1], flags=int(RegionFlag.BORDER))
    side = draw(regions, toy_pack)[0:90, 200]
    drawn = (side == ABNORMAL_RGB).all(axis=1)
    assert 0.3 < drawn.mean() < 0.7
    assert (side[~drawn] == GRAY).all()


@pytest.mark.parametrize(("saturated", "has_boxes"), [(False, True), (True, True), (False, False)])
@pytest.mark.parametrize("size", [(32, 32), (33, 2000), (640, 480)])
def test_any_size_has_a_frame_and_a_legend(toy_pack, size, saturated, has_boxes):
    width, height = size
    boxes = [(-3, -2, 20, 25), (10, 10, width + 4, height + 4), (5, 5, 5, 5)] if has_boxes else []
    regions = make_regions(boxes, abnormal=[0, 1, 1][: len(boxes)]) if boxes else no_regions()
    picture = draw(regions, toy_pack, width=width, height=height, saturated=saturated)
    assert picture.shape[1] == width
    assert height < picture.shape[0] < height + 100


def no_regions():
    none = np.zeros(0, np.float32)
    no_bools = np.zeros(0, np.bool_)
    return Regions.by_area(
        boxes=none.reshape(0, 4), scores=none, probabilities=none.reshape(0, 3),
        has=no_bools.reshape(0, 3), abnormal_p=none, abnormal=no_bools, flags=np.zeros(0, np.uint8),
    )  # fmt: skip


def test_saturated_changes_the_legend_only(toy_pack):
    regions = make_regions([(100, 100, 200, 180)], abnormal=[0])
    plain, marked = (draw(regions, toy_pack, saturated=saturated) for saturated in (False, True))
    np.testing.assert_array_equal(plain[:480], marked[:480])
    assert (plain[480:] != marked[480:]).any()


def label(regions, **more):
    options = {
        "types": ("disc", "long sickle", "burr"),
        "abnormal_types": np.array([False, True, True]),
        "measure": lambda text: 6 * len(text),
        "height": 12,
        "image_size": (640, 480),
    }
    return place_labels(regions, regions.boxes, **(options | more))


@pytest.mark.parametrize(
    ("abnormal", "has", "text"),
    [
        (False, [True, False, False], "disc 0.90"),
        (True, [True, True, False], "long sickle 0.90 +1"),
        (False, [False, False, False], "disc? 0.25"),
        (True, [True, False, False], "disc 0.90, abnormal 1.00"),
        (True, [False, False, False], "disc? 0.25, abnormal 1.00"),
    ],
)
def test_labels_name_the_type_that_tells_most(abnormal, has, text):
    [found] = label(make_regions([(100, 100, 180, 180)], abnormal=[abnormal], has=[has]))
    assert (found.text, found.left, found.top) == (text, 100, 88)


def test_a_normal_type_never_stands_in_an_abnormal_box_without_the_reason():
    for side in range(8, 200, 4):
        for has in ([True, False, False], [False, False, False]):
            regions = make_regions([(100, 100, 100 + side, 120)], abnormal=[True], has=[has])
            for found in label(regions):
                assert found.text.endswith("abnormal 1.00")


def test_unsure_boxes_are_grey_and_say_so(toy_pack):
    regions = make_regions([(100, 100, 200, 180)], abnormal=[True], flags=int(RegionFlag.UNSURE))
    assert [found.text for found in label(regions)] == ["unsure"]
    picture = draw(regions, toy_pack)
    assert (picture[100:180, 100] == UNSURE_RGB).all()
    assert not (picture == ABNORMAL_RGB).all(axis=2)[:480].any()


def test_labels_without_room_are_shortened_or_left_out():
    sickle = {"has": [[False, True, False]], "abnormal": [1]}
    tight = label(make_regions([(0, 100, 25, 125)], **sickle))
    assert [found.text for found in tight] == ["long sickle"]
    assert label(make_regions([(0, 100, 10, 110)], **sickle)) == []
    assert label(make_regions([(0, 0, 40, 20)], **sickle), image_size=(40, 20)) == []


corner = st.integers(0, 600)
some_boxes = st.lists(
    st.tuples(corner, st.integers(0, 440), st.integers(1, 90), st.integers(1, 90)), min_size=1
)


@given(some_boxes, st.randoms(use_true_random=False))
def test_labels_never_overlap_and_never_leave_the_image(sizes, random):
    boxes = [(x, y, min(x + w, 640), min(y + h, 480)) for x, y, w, h in sizes]
    regions = make_regions(boxes, abnormal=[random.random() < 0.5 for _ in boxes])
    canvas = np.zeros((480, 640), np.int32)
    labels = label(regions)
    for found in labels:
        assert found.left >= 0
        assert found.top >= 0
        canvas[found.top : found.top + 12, found.left : found.left + found.width] += 1
    assert canvas.max(initial=0) <= 1
    assert canvas.sum() == sum(12 * found.width for found in labels)
    assert len({found.region for found in labels}) == len(labels)


def test_a_picture_for_each_field_that_was_done(tmp_path, toy_pack, make_result, make_failure):
    results = [make_result("A", "A/1.jpg"), make_failure("A", "A/2.jpg"), make_result("B", "1.png")]
    results += [make_result("B", "1.tif", count=0), make_result("B/C", "B/C/x/1.jpg")]
    write(tmp_path, toy_pack, results)
    assert files(tmp_path / "overlays") == [
        "A/1.jpg.png",
        "B/1.png.png",
        "B/1.tif.png",
        "B_C/x_1.jpg.png",
    ]
    with Image.open(tmp_path / "overlays/B/1.tif.png") as image:
        image.load()
        assert image.width == 160
        assert (np.asarray(image)[:120] == GRAY).all()


def test_fields_of_one_name_all_have_their_picture(tmp_path, toy_pack, make_result):
    fields = ["a/b", "a:b", "a_b", "a_b.png~2", "", "", "a_b~2"]
    write(tmp_path, toy_pack, [make_result("s", field) for field in fields])
    assert len(files(tmp_path / "overlays")) == len(fields)


def test_overwrite_removes_pictures_of_the_earlier_run(tmp_path, toy_pack, make_result):
    write(tmp_path, toy_pack, [make_result("A", "1.jpg"), make_result("B", "2.jpg")])
    (tmp_path / "overlays/A/notes.txt").write_text("mine")
    write(tmp_path, toy_pack, [make_result("A", "3.jpg")], mode="overwrite")
    assert files(tmp_path / "overlays") == ["A/3.jpg.png", "A/notes.txt"]
    assert not (tmp_path / "overlays/B").exists()
    with RunOutput(claim(tmp_path, "overwrite"), toy_pack) as output:
        assert not output.needs_frames
        output.finish(RunRecord.of(toy_pack))
    assert files(tmp_path / "overlays") == ["A/notes.txt"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [OWN_FILES]


def test_a_file_in_the_way_is_named_at_once(tmp_path, toy_pack):
    write(tmp_path, toy_pack, [])
    (tmp_path / "overlays").rmdir()
    (tmp_path / "overlays").write_text("mine")
    with pytest.raises(OutputError, match=r"overlays: .*a file is in the way"):
        RunOutput(claim(tmp_path, "overwrite"), toy_pack, formats=["overlay"])
    assert (tmp_path / "overlays").read_text() == "mine"


def test_a_result_without_its_frame_is_refused(tmp_path, toy_pack, make_result):
    output = RunOutput(claim(tmp_path), toy_pack, formats=["overlay"])
    with pytest.raises(ValueError, match="carry their frame"):
        output.write(make_result())
    output.discard()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=300)
@given(st.text(st.characters(), max_size=300))
def test_any_name_is_one_safe_component(name):
    safe = file_name(name)
    assert 1 <= len(safe.encode("utf-8")) <= 160
    assert safe.isprintable()
    assert not set(safe) & set('/\\:*?"<>|')
    assert safe[0] not in ". "
    assert safe[-1] not in ". "


@pytest.mark.parametrize("name", ["..", ".", "", "/", "../../etc/passwd", "/etc/passwd", "a\0b"])
def test_hostile_names_stay_within_the_folder(tmp_path, toy_pack, make_result, name):
    out = tmp_path / "out"
    write(out, toy_pack, [make_result(name, name), make_result("x" * 5000, "y" * 5000)])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    pictures = files(out / "overlays")
    assert len(pictures) == 2
    assert {picture.count("/") for picture in pictures} == {1}


def test_long_names_that_differ_at_the_end_differ():
    assert file_name("é" * 200 + "1") != file_name("é" * 200 + "2")
