import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import MultiScaleRoIAlign

from rbc_engine.devices.cpu import ops

OPTIONS = {
    "strides_px": (4, 8, 16),
    "output_size": 3,
    "sampling_ratio": 2,
    "canonical_px": 24.0,
    "canonical_level": 3,
}


def bilinear(plane, y, x):
    """Value between the pixels of [h, w]; over the edge the edge, more than a pixel over it
    zero.
    """
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = plane[y0, x0] * (1 - (x - x0)) + plane[y0, x1] * (x - x0)
    bottom = plane[y1, x0] * (1 - (x - x0)) + plane[y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)


def reference_roi_align(
    features,
    boxes,
    counts,
    *,
    strides_px,
    output_size,
    sampling_ratio,
    canonical_px,
    canonical_level,
):
    images, slots, _ = boxes.shape
    channels = features[0].shape[1]
    pooled = np.zeros((images * slots, channels, output_size, output_size))
    finest = int(math.log2(strides_px[0]))
    offsets = (np.arange(sampling_ratio) + 0.5) / sampling_ratio
    for n in range(images):
        for slot in range(counts[n]):
            x0, y0, x1, y1 = map(float, boxes[n, slot])
            area = (x1 - x0) * (y1 - y0)
            level = 0
            if area > 0:
                level = (
                    math.floor(canonical_level + math.log2(math.sqrt(area) / canonical_px) + 1e-6)
                    - finest
                )
            level = min(max(level, 0), len(features) - 1)
            stride = strides_px[level]
            bin_h = max((y1 - y0) / stride, 1) / output_size
            bin_w = max((x1 - x0) / stride, 1) / output_size
            for c, i, j in np.ndindex(channels, output_size, output_size):
                samples = [
                    bilinear(
                        features[level][n, c],
                        y0 / stride + (i + dy) * bin_h,
                        x0 / stride + (j + dx) * bin_w,
                    )
                    for dy in offsets
                    for dx in offsets
                ]
                pooled[n * slots + slot, c, i, j] = np.mean(samples)
    return pooled


def pyramid(seed, *, images=1, channels=2, finest_hw=(12, 20), levels=3):
    rng = np.random.default_rng(seed)
    shapes = [(max(finest_hw[0] >> k, 1), max(finest_hw[1] >> k, 1)) for k in range(levels)]
    return [rng.standard_normal((images, channels, *shape)).astype(np.float32) for shape in shapes]


def random_boxes(seed, *, images, slots, canvas_hw):
    """Boxes on quarter pixels, so that float32 is exact: inside, over the border, and some without
    area.
    """
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-10, [canvas_hw[1] + 10, canvas_hw[0] + 10], (images, slots, 2))
    sides = rng.uniform(0, 60, (images, slots, 2)) * (rng.random((images, slots, 2)) > 0.1)
    return (np.concatenate([corners, corners + sides], axis=2) * 4).round().astype(np.float32) / 4


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 2),
    channels=st.integers(1, 10),
    finest_hw=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    levels=st.integers(1, 3),
    slots=st.integers(0, 3),
    output_size=st.integers(1, 4),
    sampling_ratio=st.integers(1, 3),
    first_stride=st.sampled_from([1, 4]),
)
def test_matches_the_reference(
    seed, images, channels, finest_hw, levels, slots, output_size, sampling_ratio, first_stride
):
    features = pyramid(seed, images=images, channels=channels, finest_hw=finest_hw, levels=levels)
    canvas_hw = (first_stride * finest_hw[0], first_stride * finest_hw[1])
    boxes = random_boxes(seed, images=images, slots=slots, canvas_hw=canvas_hw)
    counts = np.random.default_rng(seed).integers(0, slots + 1, images).astype(np.int32)
    options = OPTIONS | {
        "strides_px": [first_stride << k for k in range(levels)],
        "output_size": output_size,
        "sampling_ratio": sampling_ratio,
    }
    expected = reference_roi_align(features, boxes, counts, **options)
    pooled = ops.roi_align(features, boxes, counts, **options)
    np.testing.assert_allclose(pooled, expected, atol=2e-5)
    np.testing.assert_array_equal(
        ops.roi_align(features, boxes, counts, **options, threads=4), pooled
    )


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
def test_matches_torchvision(sampling_ratio):
    canvas_hw = (192, 320)
    features = pyramid(1, images=2, channels=5, finest_hw=(48, 80), levels=4)
    counts = np.array([40, 17], np.int32)
    boxes = random_boxes(2, images=2, slots=40, canvas_hw=canvas_hw) * np.float32(1.37)
    # Where the level changes, and so little below it that the next level is still right.
    ratios = (0.999, 1 - 6e-7, 1, 1.001)
    boxes[0, :12] = [[0, 0, px * ratio, px] for px in (28, 56, 112) for ratio in ratios]
    pool = MultiScaleRoIAlign(
        list("0123"), 7, sampling_ratio, canonical_scale=56, canonical_level=4
    )
    expected = pool(
        {str(k): torch.from_numpy(level) for k, level in enumerate(features)},
        [torch.from_numpy(boxes[n, :count]) for n, count in enumerate(counts)],
        [canvas_hw, canvas_hw],
    ).numpy()
    pooled = ops.roi_align(
        features,
        boxes,
        counts,
        strides_px=(4, 8, 16, 32),
        output_size=7,
        sampling_ratio=sampling_ratio,
        canonical_px=56.0,
        canonical_level=4,
    ).reshape(2, 40, 5, 7, 7)
    np.testing.assert_allclose(pooled[0], expected[:40], atol=1e-5)
    np.testing.assert_allclose(pooled[1, :17], expected[40:], atol=1e-5)
    assert not pooled[1, 17:].any()


def test_a_nan_box_reads_nothing():
    features = pyramid(0)
    boxes = np.full((1, 2, 4), np.nan, np.float32)
    boxes[0, 1] = [0, 0, np.inf, 8]
    assert not ops.roi_align(features, boxes, np.array([1], np.int32), **OPTIONS).any()
    ops.roi_align(features, boxes, np.array([2], np.int32), **OPTIONS)  # stays within its memory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"strides_px": (4, 8)},
            r"strides_px needs one stride for each of 3 levels \(got \(4, 8\)\)",
        ),
        (
            {"strides_px": (4, 8, 8)},
            r"strides_px must be powers of two that double .*got \(4, 8, 8\)",
        ),
        (
            {"strides_px": (3, 6, 12)},
            r"strides_px must be powers of two that double .*got \(3, 6, 12\)",
        ),
        ({"output_size": 0}, r"output_size must be at least 1 \(got 0\)"),
        ({"sampling_ratio": 0}, r"sampling_ratio must be at least 1 \(got 0\)"),
        ({"canonical_px": 0.0}, r"canonical_px must be positive \(got 0.0\)"),
        ({"canonical_level": -1}, r"canonical_level must be at least 0 \(got -1\)"),
        ({"threads": 0}, r"threads must be at least 1 \(got 0\)"),
    ],
)
def test_says_which_option_is_wrong(change, message):
    boxes, counts = np.zeros((1, 2, 4), np.float32), np.zeros(1, np.int32)
    with pytest.raises(ValueError, match=message):
        ops.roi_align(pyramid(0), boxes, counts, **OPTIONS | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": []}, r"features must have at least one level"),
        (
            {"features": [pyramid(0)[0], pyramid(0, channels=3)[1], pyramid(0)[2]]},
            r"features\[1\] must be float32 \[1, 2, h, w\] \(got float32 \[1, 3, 6, 10\]\)",
        ),
        (
            {"features": [np.zeros((1, 2, 0, 4), np.float32)]},
            r"features\[0\] must not be empty \(got \[1, 2, 0, 4\]\)",
        ),
        (
            {"boxes": np.zeros((2, 4), np.float32)},
            r"boxes must be float32 \[N, K, 4\] \(got float32 \[2, 4\]\)",
        ),
        ({"counts": np.array([3], np.int32)}, r"counts must lie in 0..2 \(got \[3\]\)"),
        ({"counts": np.array([1.0])}, r"counts must be int32 \[1\] \(got float64 \[1\]\)"),
    ],
)
def test_says_which_array_is_wrong(change, message):
    arrays = {
        "features": pyramid(0),
        "boxes": np.zeros((1, 2, 4), np.float32),
        "counts": np.zeros(1, np.int32),
    }
    with pytest.raises(ValueError, match=message):
        ops.roi_align(**arrays | change, **OPTIONS)
