"""The engine as a library: one image, many images, order, errors, and independence of how work is
cut.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rbc_engine import Engine, ImageError, PixelFormat, UsageError
from rbc_engine.lanes.lane import Lane
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.regions import RegionFlag

from ..boxes import ious


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.open("chula12", device="cpu", precision="fp32") as opened:
        yield opened


def source(count: int, *, width: int = 320, height: int = 240) -> Iterator[Decoded]:
    for index in range(count):
        field = render_field(seed=index, width=width, height=height, cells=6 + index % 7)
        ref = FieldRef(slide="s", field=f"{index}", path=Path(f"{index}.jpg"))
        yield Decoded(ref=ref, frame=Frame(pixels=field.pixels, slide="s", field=f"{index}"))


def test_finds_rendered_cells_and_their_boxes(engine: Engine) -> None:
    """Against the truth of the renderer: a detector that is off by a scale or an offset finds
    none.
    """
    field = render_field(seed=3, width=640, height=480, cells=40)
    regions = engine.analyze(field.pixels).regions
    assert regions is not None
    found = (ious(field.boxes, regions.boxes) >= 0.5).any(axis=1)
    assert found.mean() >= 0.8


def test_results_keep_the_order_of_frames_and_equal_single_calls(engine: Engine) -> None:
    results = list(engine.run(source(11)))
    assert [result.field for result in results] == [str(index) for index in range(11)]
    for decoded, result in zip(source(11), results, strict=True):
        assert decoded.frame is not None
        alone = engine.analyze(decoded.frame).regions
        assert alone is not None
        assert result.regions is not None
        np.testing.assert_allclose(result.regions.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(result.regions.probabilities, alone.probabilities, atol=1e-4)
        np.testing.assert_allclose(result.regions.abnormal_p, alone.abnormal_p, atol=1e-2)


def test_lanes_do_not_change_the_answer(engine: Engine) -> None:
    with Engine.open("chula12", device="cpu", precision="fp32", lanes=1) as other:
        first, second = list(engine.run(source(5))), list(other.run(source(5)))
    assert len(first) == 5
    for a, b in zip(first, second, strict=True):
        assert a.regions is not None
        assert b.regions is not None
        assert len(a.regions)
        np.testing.assert_allclose(a.regions.boxes, b.regions.boxes, atol=1e-3)
        np.testing.assert_allclose(a.regions.probabilities, b.regions.probabilities, atol=1e-4)


def test_frames_of_different_sizes_share_a_run(engine: Engine) -> None:
    mixed = [*source(2), *source(2, width=250, height=400), *source(1, width=640, height=480)]
    results = list(engine.run(mixed))
    assert [(r.width, r.height) for r in results] == [(320, 240)] * 2 + [(250, 400)] * 2 + [
        (640, 480)
    ]
    assert all(result.ok for result in results)


def test_a_failed_frame_harms_only_itself(engine: Engine) -> None:
    items = list(source(4))
    items[1] = Decoded(ref=items[1].ref, error="broken.jpg is empty")
    strip = Frame(pixels=np.zeros((32, 8000, 3), np.uint8), field="strip")
    items[2] = Decoded(ref=items[2].ref, frame=strip)
    results = list(engine.run(items))
    assert [result.ok for result in results] == [True, False, False, True]
    assert results[1].error == "broken.jpg is empty"
    assert "8000x32" in (results[2].error or "")


def test_field_without_cells(engine: Engine) -> None:
    blank = np.full((240, 320, 3), (200, 205, 200), np.uint8)
    regions = engine.analyze(blank).regions
    assert regions is not None
    assert len(regions) == 0
    assert regions.probabilities.shape == (0, 12)


def test_border_flag_marks_cut_cells(engine: Engine) -> None:
    field = render_field(seed=5, width=640, height=480, cells=60)
    regions = engine.analyze(field.pixels).regions
    assert regions is not None
    border = (regions.flags & RegionFlag.BORDER) > 0
    inside = (regions.boxes[:, :2] > 10).all(1) & (regions.boxes[:, 2:] < [630, 470]).all(1)
    assert border.any()
    assert not (border & inside).any()


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((64, 64, 3), np.float32), "uint8"),
        (np.zeros((64,), np.uint8), r"\[H, W, 3\]"),
        (np.zeros((64, 64, 4), np.uint8), r"\[64, 64, 4\]"),
        (np.zeros((0, 64, 3), np.uint8), r"32\.\.8192 px \(got 64x0\)"),
        (np.zeros((31, 64, 3), np.uint8), r"32\.\.8192 px"),
        (np.zeros((64, 64, 3), np.uint16), r"PixelFormat\.bits"),
        ([[1, 2, 3]], "list"),
        ("cell.jpg", "pixels, not the path of a file .got 'cell.jpg'"),
        (Path("cell.jpg"), "pixels, not the path of a file"),
    ],
)
def test_wrong_images_are_refused(engine: Engine, image: object, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        engine.analyze(image)  # type: ignore[arg-type]


def test_analyze_takes_what_a_session_takes(engine: Engine) -> None:
    field = render_field(seed=5, width=320, height=240, cells=20)
    expected = engine.analyze(field.pixels).regions
    assert expected is not None
    twelve = np.round(field.pixels / 255 * 4095).astype(np.uint16)
    for image, layout, bits in (
        (field.pixels[..., ::-1], "bgr", None),
        (twelve, "rgb", 12),
        (np.dstack([field.pixels, np.zeros((240, 320), np.uint8)]), "rgba", None),
    ):
        found = engine.analyze(image, pixels=PixelFormat(layout=layout, bits=bits)).regions
        assert found is not None
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.5)
    assert engine.analyze(field.pixels[..., 0]).regions is not None  # mono


def test_image_views_need_no_copy_by_the_caller(engine: Engine) -> None:
    field = render_field(seed=1, width=320, height=240, cells=8)
    flipped = engine.analyze(field.pixels[:, ::-1]).regions
    copied = engine.analyze(np.ascontiguousarray(field.pixels[:, ::-1])).regions
    assert flipped is not None
    assert copied is not None
    np.testing.assert_array_equal(flipped.boxes, copied.boxes)


def test_an_error_in_a_lane_is_raised_where_results_are_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Lane, batch: object, *, keep_frames: bool = False) -> None:
        raise ZeroDivisionError("in the lane")

    monkeypatch.setattr(Lane, "analyze", fail)
    with pytest.raises(ZeroDivisionError, match="in the lane"):
        list(engine.run(source(8)))
    monkeypatch.undo()
    assert len(list(engine.run(source(3)))) == 3  # the engine is still of use


def test_reading_slowly_bounds_what_is_in_flight(engine: Engine) -> None:
    taken = 0

    def counted() -> Iterator[Decoded]:
        nonlocal taken
        for decoded in source(60, width=64, height=64):
            taken += 1
            yield decoded

    results = engine.run(counted())
    next(results)
    limit = 2 * engine.choice.lanes * engine.choice.lane_frames
    assert taken <= limit
    results.close()


def test_a_session_gives_what_single_calls_give(engine: Engine) -> None:
    frames = [*source(3), *source(1, width=250, height=400)]
    with engine.session(order="submitted", max_batch=2, max_in_flight=20) as session:
        for number, decoded in enumerate(frames):
            assert decoded.frame is not None
            session.submit(decoded.frame.pixels, field=str(number))
        strip = np.zeros((32, 8000, 3), np.uint8)
        session.submit(strip, field="strip")
        session.finish()
        *ends, last = session.results()
    assert "8000x32" in last.reason
    assert [ended.field for ended in ends] == [str(number) for number in range(len(frames))]
    for decoded, ended in zip(frames, ends, strict=True):
        assert decoded.frame is not None
        assert ended.result is not None
        alone, got = engine.analyze(decoded.frame).regions, ended.result.regions
        assert alone is not None
        assert got is not None
        np.testing.assert_allclose(got.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(got.probabilities, alone.probabilities, atol=1e-4)


def test_closing_leaves_no_thread() -> None:
    before = threading.active_count()
    with Engine.open("chula12", device="cpu") as opened:
        list(opened.run(source(3)))
        assert threading.active_count() > before
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "tpu"}, "tpu"),
        ({"device": "cpu:1"}, "cpu:1"),
        ({"precision": "fp12"}, "fp12"),
        ({"lanes": 0}, "lanes"),
    ],
)
def test_wrong_options_name_the_value(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        Engine.open("chula12", **options)  # type: ignore[arg-type]
    assert "--" not in str(refused.value)
    assert str(refused.value).startswith(next(iter(options)))


def test_closed_engine_says_so() -> None:
    opened = Engine.open("chula12", device="cpu")
    opened.close()
    opened.close()
    with pytest.raises(Exception, match="closed"):
        opened.analyze(np.zeros((64, 64, 3), np.uint8))
