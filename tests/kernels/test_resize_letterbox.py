import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from rbc_engine.devices.cpu import ops
from rbc_engine.sources.synthetic.field import render_field

from .reference import background, exposure_gain

OPTIONS = {"canvas_hw": (40, 48)}


def random_frame(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def reference_resize(frame, height, width):
    """Bilinear with half-pixel centres, float64, not rounded."""

    def taps(size, resized):
        at = np.clip((np.arange(resized) + 0.5) * size / resized - 0.5, 0, size - 1)
        low = at.astype(int)
        return low, np.minimum(low + 1, size - 1), at - low

    y0, y1, fy = taps(frame.shape[0], height)
    x0, x1, fx = taps(frame.shape[1], width)
    fy, fx = fy[:, None, None], fx[None, :, None]
    pixels = frame.astype(np.float64)
    top = pixels[y0][:, x0] * (1 - fx) + pixels[y0][:, x1] * fx
    bottom = pixels[y1][:, x0] * (1 - fx) + pixels[y1][:, x1] * fx
    return top * (1 - fy) + bottom * fy


def assert_rounded(pixels, exact):
    assert np.abs(pixels - exact).max() < 0.5 + 1e-3


size = st.tuples(st.integers(1, 40), st.integers(1, 48))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.tuples(size, size), max_size=3))
def test_matches_the_reference(seed, sizes):
    frames = [random_frame(seed, *frame_hw) for frame_hw, _ in sizes]
    resized_hw = np.array([hw for _, hw in sizes], np.int32).reshape(-1, 2)
    canvases = ops.resize_letterbox(frames, resized_hw, **OPTIONS)
    assert canvases.shape == (len(frames), 40, 48, 3)
    assert canvases.dtype == np.uint8
    for canvas, frame, (height, width) in zip(canvases, frames, resized_hw, strict=True):
        assert_rounded(canvas[:height, :width], reference_resize(frame, height, width))
        margin = np.concatenate(
            [canvas[height:].reshape(-1, 3), canvas[:height, width:].reshape(-1, 3)]
        )
        assert (margin == background(frame)).all()
    np.testing.assert_array_equal(
        ops.resize_letterbox(frames, resized_hw, **OPTIONS, threads=4), canvases
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), frame_hw=size, resized_hw=size, highest=st.integers(1, 255),
    level=st.floats(1, 255, width=32),
)  # fmt: skip
def test_frames_are_exposed_alike(seed, frame_hw, resized_hw, highest, level):
    frame = np.random.default_rng(seed).integers(0, highest + 1, (*frame_hw, 3), dtype=np.uint8)
    height, width = resized_hw
    arguments = [frame], np.array([resized_hw], np.int32)
    [canvas] = ops.resize_letterbox(*arguments, **OPTIONS, background_level=level)
    glass, gain = background(frame).astype(float), exposure_gain(frame, level)
    assert_rounded(
        canvas[:height, :width], np.minimum(reference_resize(frame, height, width) * gain, 255)
    )
    margin = np.concatenate(
        [canvas[height:].reshape(-1, 3), canvas[:height, width:].reshape(-1, 3)]
    )
    if margin.size:
        assert_rounded(margin, np.minimum(glass * gain, 255))
    if gain == 1:
        [plain] = ops.resize_letterbox(*arguments, **OPTIONS)
        np.testing.assert_array_equal(canvas, plain)


def test_the_margin_looks_like_the_glass_between_the_cells():
    """However bright a field is: a margin of another colour hides the cells that the edge cuts."""
    for seed, brightness in enumerate((0.5, 0.8, 1.0)):
        field = render_field(seed=seed, width=320, height=240, cells=20)
        frame = (field.pixels * brightness).astype(np.uint8)
        glass = np.ones(frame.shape[:2], bool)
        for x0, y0, x1, y1 in np.rint(field.boxes).astype(int):
            glass[y0:y1, x0:x1] = False
        size = np.array([[240, 320]], np.int32)
        [canvas] = ops.resize_letterbox([frame], size, canvas_hw=(256, 352))
        np.testing.assert_allclose(canvas[-1, -1], np.median(frame[glass], axis=0), atol=10)


@pytest.mark.parametrize("resized_hw", [(96, 128), (61, 90), (30, 40), (48, 64)])
def test_matches_torchvision(resized_hw):
    frame = random_frame(5, 48, 64)
    transform = GeneralizedRCNNTransform(
        1, 1, [0.0] * 3, [1.0] * 3, fixed_size=(resized_hw[1], resized_hw[0])
    ).eval()
    images, _ = transform([torch.from_numpy(frame).permute(2, 0, 1).float()])
    assert images.image_sizes == [resized_hw]
    expected = images.tensors[0].permute(1, 2, 0).numpy()
    canvas = ops.resize_letterbox(
        [frame],
        np.array([resized_hw], np.int32),
        canvas_hw=expected.shape[:2],
    )[0]
    height, width = resized_hw
    assert_rounded(canvas[:height, :width], expected[:height, :width])


def test_a_frame_of_its_own_size_is_copied():
    frame = random_frame(1, 40, 48)
    canvas = ops.resize_letterbox([frame], np.array([[40, 48]], np.int32), **OPTIONS)[0]
    np.testing.assert_array_equal(canvas, frame)


def test_reads_views_into_larger_frames():
    frame = random_frame(2, 60, 80)
    view = frame[7:47, 11:60]
    assert not view.flags.c_contiguous
    size = np.array([[33, 41]], np.int32)
    np.testing.assert_array_equal(
        ops.resize_letterbox([view], size, **OPTIONS),
        ops.resize_letterbox([np.ascontiguousarray(view)], size, **OPTIONS),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": [[1, 2]]}, r"frames\[0\] must be a uint8 array \(got list\)"),
        ({"frames": [np.zeros((4, 4, 3))]}, r"frames\[0\] must be a uint8 array \(got float64\)"),
        (
            {"frames": [np.zeros((4, 4), np.uint8)]},
            r"frames\[0\] must be \[H, W, 3\] \(got \[4, 4\]\)",
        ),
        (
            {"frames": [np.zeros((0, 4, 3), np.uint8)]},
            r"frames\[0\] must be \[H, W, 3\] \(got \[0, 4, 3\]\)",
        ),
        (
            {"frames": [random_frame(0, 8, 8)[:, ::2]]},
            r"frames\[0\] must have contiguous rows \(got strides",
        ),
        (
            {"frames": [random_frame(0, 8, 8)[::-1]]},
            r"frames\[0\] must have contiguous rows \(got strides",
        ),
        (
            {"resized_hw": np.array([[0, 5]], np.int32)},
            r"resized_hw must be at least 1 \(got \[0, 5\]",
        ),
        (
            {"resized_hw": np.array([[41, 5]], np.int32)},
            r"resized_hw must lie in 1..canvas_hw .*\[\[41, 5\]\]",
        ),
        ({"resized_hw": np.array([[4, 5]])}, r"resized_hw must be int32 \[1, 2\] \(got int64"),
        ({"canvas_hw": (0, 5)}, r"canvas_hw must be positive \(got \(0, 5\)\)"),
        *[
            ({"background_level": level}, r"background_level must be None or lie in 1..255 \(got ")
            for level in (0, 0.5, 256, float("nan"))
        ],
        ({"threads": 0}, r"threads must be at least 1 \(got 0\)"),
    ],
)
def test_says_which_argument_is_wrong(change, message):
    arguments = {
        "frames": [random_frame(0, 8, 8)],
        "resized_hw": np.array([[8, 8]], np.int32),
        **OPTIONS,
    }
    with pytest.raises(ValueError, match=message):
        ops.resize_letterbox(**arguments | change)
