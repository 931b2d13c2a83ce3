import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rbc_engine.devices.cpu import ops

MEAN, STD = (120.0, 130.5, 140.0), (50.0, 60.0, 70.5)
OPTIONS = {"size_px": 9, "mean": MEAN, "std": STD}


def random_frame(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def triangle_weights(start, end, size, first, last):
    """float64 [size, last - first]: weight of each pixel first..last-1 in each output sample; rows
    sum to one.
    """
    scale = (end - start) / size
    centres = start + (np.arange(size) + 0.5) * scale
    pixels = np.arange(first, last) + 0.5
    weights = np.clip(1 - np.abs(pixels - centres[:, None]) / max(scale, 1.0), 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def reference_crop(frame, window, size_px):
    """The frame laid on an endless sheet of the mean colour, filtered, normalised."""
    x0, y0, x1, y1 = map(float, window)
    margin = int(max(x1 - x0, y1 - y0)) + 3
    left, top = int(np.floor(x0)) - margin, int(np.floor(y0)) - margin
    right, bottom = int(np.ceil(x1)) + margin, int(np.ceil(y1)) + margin
    sheet = np.zeros((bottom - top, right - left, 3))
    ys, xs = np.arange(top, bottom), np.arange(left, right)
    inside = np.ix_((ys >= 0) & (ys < frame.shape[0]), (xs >= 0) & (xs < frame.shape[1]))
    seen = frame[
        np.ix_(ys[(ys >= 0) & (ys < frame.shape[0])], xs[(xs >= 0) & (xs < frame.shape[1])])
    ]
    sheet[inside] = (seen - np.array(MEAN)) / np.array(STD)
    down = triangle_weights(y0, y1, size_px, top, bottom)
    across = triangle_weights(x0, x1, size_px, left, right)
    return np.einsum("iy,jx,yxc->cij", down, across, sheet)


coordinate = st.floats(-40, 60, width=16)
side = st.floats(0.125, 50, width=16)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frame_hws=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=2),
    places=st.lists(st.tuples(coordinate, coordinate, side, side), max_size=4),
    size_px=st.integers(1, 12),
)
def test_matches_the_reference(seed, frame_hws, places, size_px):
    frames = [random_frame(seed, *hw) for hw in frame_hws]
    windows = np.array([(x, y, x + w, y + h) for x, y, w, h in places], np.float32).reshape(-1, 4)
    frame_index = (np.arange(len(windows)) % len(frames)).astype(np.int32)
    options = OPTIONS | {"size_px": size_px}
    patches = ops.crop_resize(frames, windows, frame_index, **options)
    assert patches.shape == (len(windows), 3, size_px, size_px)
    for patch, window, index in zip(patches, windows, frame_index, strict=True):
        np.testing.assert_allclose(patch, reference_crop(frames[index], window, size_px), atol=2e-4)
    again = ops.crop_resize(frames, windows, frame_index, **options, threads=4)
    np.testing.assert_array_equal(again, patches)


@pytest.mark.parametrize(
    "window",
    [(20, 20, 44, 44), (20.25, 18.5, 47.75, 33.0), (30, 30, 34.5, 33.25), (25, 25, 40, 41.5)],
)
def test_matches_pillow_inside_the_frame(window):
    frame = random_frame(3, 64, 64)
    patch = ops.crop_resize(
        [frame], np.array([window], np.float32), np.zeros(1, np.int32), **OPTIONS
    )[0]
    for c in range(3):
        plane = Image.fromarray(frame[:, :, c].astype(np.float32))
        pillow = np.asarray(plane.resize((9, 9), Image.Resampling.BILINEAR, box=window))
        np.testing.assert_allclose(patch[c] * STD[c] + MEAN[c], pillow, atol=2e-3)


@pytest.mark.parametrize(("side_px", "size_px"), [(48, 12), (40, 16), (16, 40)])
def test_matches_torch_antialias_away_from_the_edge(side_px, size_px):
    # torch never sees beyond the crop, so output samples whose filter does are left out.
    frame = random_frame(4, 80, 80)
    window = np.array([[11, 17, 11 + side_px, 17 + side_px]], np.float32)
    options = OPTIONS | {"size_px": size_px}
    patch = ops.crop_resize([frame], window, np.zeros(1, np.int32), **options)[0]
    crop = (
        torch.from_numpy(frame[17 : 17 + side_px, 11 : 11 + side_px]).permute(2, 0, 1)[None].float()
    )
    expected = torch.nn.functional.interpolate(
        crop, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False
    )[0].numpy()
    edge = int(np.ceil(max(size_px / side_px, 1)))
    inner = (slice(None), slice(edge, -edge), slice(edge, -edge))
    grey = patch * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]
    np.testing.assert_allclose(grey[inner], expected[inner], atol=2e-3)


def test_windows_off_the_frame_are_zero():
    windows = np.array([[-50, -50, -20, -20], [5, 400, 9, 404]], np.float32)
    patches = ops.crop_resize([random_frame(0, 20, 20)], windows, np.zeros(2, np.int32), **OPTIONS)
    assert not patches.any()


def test_reads_views_into_larger_frames():
    frame = random_frame(2, 60, 80)
    view = frame[7:47, 11:60]
    assert not view.flags.c_contiguous
    windows = np.array([[-3, 5, 30, 38], [30, 20, 55, 45]], np.float32)
    index = np.zeros(2, np.int32)
    np.testing.assert_array_equal(
        ops.crop_resize([view], windows, index, **OPTIONS),
        ops.crop_resize([np.ascontiguousarray(view)], windows, index, **OPTIONS),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"windows": np.array([[0, 0, 0, 5]], np.float32)},
            r"windows .*got \[0.0, 0.0, 0.0, 5.0\] in row 0",
        ),
        ({"windows": np.array([[0, 0, np.nan, 5]], np.float32)}, r"windows must be finite .*nan"),
        (
            {"windows": np.array([[0, 0, 2e6, 5]], np.float32)},
            r"windows .*within ±1000000 px \(got .*2000000",
        ),
        (
            {"windows": np.zeros((1, 4))},
            r"windows must be float32 \[R, 4\] \(got float64 \[1, 4\]\)",
        ),
        ({"windows": [1]}, r"windows must be a float32 \[R, 4\] array \(got list\)"),
        ({"frame_index": np.array([1], np.int32)}, r"frame_index must lie in 0..0 \(got 1..1\)"),
        ({"frame_index": np.array([-1], np.int32)}, r"frame_index must lie in 0..0 \(got -1..-1\)"),
        (
            {"frame_index": np.zeros(2, np.int32)},
            r"frame_index must be int32 \[1\] \(got int32 \[2\]\)",
        ),
        (
            {"frames": [np.zeros((4, 4, 4), np.uint8)]},
            r"frames\[0\] must be \[H, W, 3\] \(got \[4, 4, 4\]\)",
        ),
        ({"size_px": 0}, r"size_px must be at least 1 \(got 0\)"),
        (
            {"mean": (0.0, 0.0, 300.0)},
            r"mean must be three grey levels 0..255 \(got \(0.0, 0.0, 300.0\)\)",
        ),
        (
            {"std": (1.0, 0.0, 1.0)},
            r"std must be three positive grey levels \(got \(1.0, 0.0, 1.0\)\)",
        ),
        ({"std": (float("nan"), 1.0, 1.0)}, r"std must be three positive grey levels \(got \(nan"),
        ({"threads": 0}, r"threads must be at least 1 \(got 0\)"),
    ],
)
def test_says_which_argument_is_wrong(change, message):
    arguments = {
        "frames": [random_frame(0, 8, 8)],
        "windows": np.array([[1, 1, 5, 5]], np.float32),
        "frame_index": np.zeros(1, np.int32),
        **OPTIONS,
    }
    with pytest.raises(ValueError, match=message):
        ops.crop_resize(**arguments | change)
