from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

from rbc_engine.devices.anchors import base_anchors
from rbc_engine.devices.cpu import ops

from . import reference


def reference_proposals(
    objectness, deltas, *, base_anchors, strides_px, image_hw, per_level, keep, nms_iou
):
    images = []
    for n in range(len(image_hw)):
        boxes, logits = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        for level, anchors in enumerate(base_anchors):
            count = len(anchors)
            height, width = objectness[level].shape[2:]
            level_logits = objectness[level][n].transpose(1, 2, 0).ravel()
            level_deltas = deltas[level][n].reshape(count, 4, height, width).transpose(2, 3, 0, 1)
            y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(strides_px[level])
            level_anchors = np.stack([x, y, x, y], axis=2)[:, :, None] + anchors
            numbers = np.flatnonzero(~np.isnan(level_logits))
            order = numbers[reference.best_first(level_logits[numbers])[:per_level]]
            found = reference.decode(
                level_anchors.reshape(-1, 4)[order], level_deltas.reshape(-1, 4)[order]
            )
            found = reference.clip(found, image_hw[n])
            large = reference.has_sides(found, 1e-3)
            found, found_logits = found[large], level_logits[order][large]
            kept = reference.nms(found, nms_iou)
            boxes = np.concatenate([boxes, found[kept]])
            logits = np.concatenate([logits, found_logits[kept]])
        images.append(boxes[reference.best_first(logits)[:keep]])
    return images


def random_inputs(seed, *, images=1, shapes=((6, 8), (3, 4)), anchors=2, ties=False, spoil=0.0):
    """Random levels; `ties` leaves few distinct logits, `spoil` is the share of values that are NaN
    or infinite.
    """
    rng = np.random.default_rng(seed)

    def spoilt(array):
        bad = rng.random(array.shape) < spoil
        array[bad] = rng.choice([np.nan, np.inf, -np.inf, 1e30, -0.0], bad.sum())
        return array.astype(np.float32)

    objectness, deltas = [], []
    for height, width in shapes:
        logits = rng.normal(0, 3, (images, anchors, height, width))
        objectness.append(spoilt(logits.round() if ties else logits))
        deltas.append(spoilt(rng.normal(0, 0.7, (images, 4 * anchors, height, width))))
    options = {
        "base_anchors": [
            base_anchors((4 * 2**k,), (0.5, 1, 2)[:anchors]) for k in range(len(shapes))
        ],
        "strides_px": [4 * 2**k for k in range(len(shapes))],
        "image_hw": rng.integers(1, 40, (images, 2)).astype(np.int32),
        "per_level": 20,
        "keep": 15,
        "nms_iou": 0.5,
    }
    return objectness, deltas, options


def assert_same(proposals, counts, expected):
    assert counts.tolist() == [len(boxes) for boxes in expected]
    for got, count, boxes in zip(proposals, counts, expected, strict=True):
        np.testing.assert_array_equal(got[:count], boxes)
        assert not got[count:].any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN and infinity in the reference
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(0, 2),
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3),
    anchors=st.integers(1, 3),
    ties=st.booleans(),
    spoil=st.sampled_from([0.0, 0.1, 1.0]),
    per_level=st.integers(1, 60),
    keep=st.integers(1, 60),
    nms_iou=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_matches_the_reference(
    seed, images, shapes, anchors, ties, spoil, per_level, keep, nms_iou
):
    objectness, deltas, options = random_inputs(
        seed, images=images, shapes=shapes, anchors=anchors, ties=ties, spoil=spoil
    )
    options |= {"per_level": per_level, "keep": keep, "nms_iou": nms_iou}
    expected = reference_proposals(objectness, deltas, **options)
    for threads in (1, 4):
        assert_same(
            *ops.generate_proposals(objectness, deltas, **options, threads=threads), expected
        )


@pytest.mark.parametrize("seed", range(3))
def test_matches_torchvision(seed):
    rng = np.random.default_rng(seed)
    canvas_hw, sizes, ratios = (96, 160), ((12,), (24,), (48,)), (0.5, 1.0, 2.0)
    shapes = [(canvas_hw[0] // stride, canvas_hw[1] // stride) for stride in (4, 8, 16)]
    # Logits far enough apart that their sigmoids, which torchvision sorts by, differ too.
    total = 2 * sum(3 * height * width for height, width in shapes)
    logits = iter((rng.permutation(total) / total * 8 - 6).astype(np.float32))
    objectness = [
        np.fromiter(logits, np.float32, 6 * height * width).reshape(2, 3, height, width)
        for height, width in shapes
    ]
    deltas = [rng.normal(0, 0.4, (2, 12, *shape)).astype(np.float32) for shape in shapes]
    image_hw = np.array([[96, 160], [70, 133]], np.int32)

    class Head(torch.nn.Module):
        def forward(self, features):
            return [torch.from_numpy(a) for a in objectness], [torch.from_numpy(a) for a in deltas]

    rpn = RegionProposalNetwork(
        AnchorGenerator(sizes, (ratios,) * 3),
        Head(),
        0.7,
        0.3,
        256,
        0.5,
        {"training": 300, "testing": 300},
        {"training": 200, "testing": 200},
        0.7,
    ).eval()
    features = OrderedDict((str(k), torch.zeros(2, 1, *shape)) for k, shape in enumerate(shapes))
    images = ImageList(torch.zeros(2, 3, *canvas_hw), [tuple(hw) for hw in image_hw.tolist()])
    expected, _ = rpn(images, features)

    proposals, counts = ops.generate_proposals(
        objectness,
        deltas,
        base_anchors=[base_anchors(size, ratios) for size in sizes],
        strides_px=(4, 8, 16),
        image_hw=image_hw,
        per_level=300,
        keep=200,
        nms_iou=0.7,
    )
    assert counts.tolist() == [len(boxes) for boxes in expected]
    for got, boxes in zip(proposals, expected, strict=True):
        np.testing.assert_allclose(got[: len(boxes)], boxes.numpy(), atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.floats(1, 1000, width=32), min_size=1, max_size=4),
    ratios=st.lists(st.floats(0.125, 8, width=32), min_size=1, max_size=4),
)
def test_base_anchors_are_torchvisions(sizes, ratios):
    expected = AnchorGenerator.generate_anchors(AnchorGenerator(), sizes, ratios).numpy()
    np.testing.assert_array_equal(base_anchors(sizes, ratios), expected)


def test_equal_logits_rank_by_level_then_cell_then_anchor():
    # Four anchors of two shapes on each of two levels, far apart; -0 and +0 are equal logits.
    shapes = np.array([[0, 0, 3, 4], [5, 0, 9, 4]], np.float32)
    zeros = np.array([0.0, -0.0, -0.0, 0.0], np.float32).reshape(1, 2, 1, 2)
    proposals, counts = ops.generate_proposals(
        [zeros, -zeros],
        [np.zeros((1, 8, 1, 2), np.float32)] * 2,
        base_anchors=[shapes, shapes + np.float32([0, 10, 0, 10])],
        strides_px=[16, 16],
        image_hw=np.array([[32, 32]], np.int32),
        per_level=4,
        keep=7,
        nms_iou=0.5,
    )
    assert counts.tolist() == [7]
    expected = [[x, y] for y in (0, 10) for x in (0, 5, 16, 21)][:7]
    assert proposals[0, :, :2].tolist() == expected


def test_all_nan_gives_no_proposals():
    objectness, deltas, options = random_inputs(0)
    nothing = [np.full_like(level, np.nan) for level in objectness]
    proposals, counts = ops.generate_proposals(nothing, deltas, **options)
    assert counts.tolist() == [0]
    assert not proposals.any()


def with_nan(arrays):
    return [
        np.where(np.arange(a.size).reshape(a.shape) % 3 == 0, np.float32("nan"), a) for a in arrays
    ]


def test_nan_logits_take_no_candidates_place():
    objectness, deltas, options = random_inputs(3)
    expected = reference_proposals(with_nan(objectness), deltas, **options | {"per_level": 5})
    got = ops.generate_proposals(with_nan(objectness), deltas, **options | {"per_level": 5})
    assert_same(*got, expected)
    assert got[1][0] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_level": 0}, r"per_level must be at least 1 \(got 0\)"),
        ({"keep": -1}, r"keep must be at least 1 \(got -1\)"),
        ({"nms_iou": 1.5}, r"nms_iou must lie in 0..1 \(got 1.5\)"),
        ({"nms_iou": float("nan")}, r"nms_iou .*got nan"),
        ({"threads": 0}, r"threads must be at least 1 \(got 0\)"),
        (
            {"strides_px": [4]},
            r"strides_px needs one entry for each level of objectness, 2 \(got 1\)",
        ),
        ({"strides_px": [4, 0]}, r"strides_px\[1\] must be at least 1 \(got 0\)"),
        ({"base_anchors": []}, r"base_anchors needs one entry .*got 0"),
        (
            {"image_hw": np.zeros((1, 2), np.int32)},
            r"image_hw must be at least 1 \(got \[0, 0\] in row 0\)",
        ),
        (
            {"image_hw": np.ones((1, 2), np.int64)},
            r"image_hw must be int32 \[1, 2\] \(got int64 \[1, 2\]\)",
        ),
        (
            {"image_hw": np.ones((3, 2), np.int32)},
            r"image_hw must be int32 \[1, 2\] \(got int32 \[3, 2\]\)",
        ),
    ],
)
def test_says_which_option_is_wrong(change, message):
    objectness, deltas, options = random_inputs(0)
    with pytest.raises(ValueError, match=message):
        ops.generate_proposals(objectness, deltas, **options | change)


def test_says_which_level_is_wrong():
    objectness, deltas, options = random_inputs(0)
    with pytest.raises(
        ValueError, match=r"deltas\[1\] must be float32 \[1, 8, 3, 4\] \(got float64"
    ):
        ops.generate_proposals(objectness, [deltas[0], deltas[1].astype(np.float64)], **options)
    flipped = [objectness[0], objectness[1][:, :, ::-1]]
    with pytest.raises(ValueError, match=r"objectness\[1\] must be C-contiguous"):
        ops.generate_proposals(flipped, deltas, **options)
    with pytest.raises(ValueError, match=r"objectness must have at least one level"):
        ops.generate_proposals([], [], **options)


@pytest.mark.parametrize(("sizes", "ratios"), [((), (1,)), ((0,), (1,)), ((8,), ()), ((8,), (-1,))])
def test_base_anchors_refuse_what_is_not_positive(sizes, ratios):
    with pytest.raises(
        ValueError, match=r"(sizes_px|aspect_ratios) must be positive, at least one \(got"
    ):
        base_anchors(sizes, ratios)
