import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes

from rbc_engine.devices.cpu import ops

from . import reference

F = np.float32


def reference_class(logits):
    """The likeliest class of one proposal beside the background, and its probability by softmax."""
    label = 1 + int(np.argmax(logits[1:]))  # of equals the first; a NaN if there is one
    total = F(1)
    for c, logit in enumerate(logits):
        if c != label:
            total += np.exp(np.float64(logit - logits[label])).astype(F)
    return label, F(1) / total


def reference_detections(
    class_logits,
    box_deltas,
    proposals,
    counts,
    *,
    image_hw,
    frame_hw,
    score_threshold,
    nms_iou,
    max_regions,
):
    results = []
    slots = proposals.shape[1]
    for n, count in enumerate(counts):
        rows = slice(n * slots, n * slots + count)
        chosen = [reference_class(logits) for logits in class_logits[rows]]
        classes = np.array([label for label, _ in chosen], int)
        scores = np.array([score for _, score in chosen], F)
        by_class = box_deltas[rows].reshape(count, class_logits.shape[1], 4)
        deltas = by_class[np.arange(count), classes] / np.array([10, 10, 5, 5], F)
        boxes = reference.clip(reference.decode(proposals[n, :count], deltas), image_hw[n])
        good = (scores > F(score_threshold)) & reference.has_sides(boxes, 1e-2)
        boxes, scores, classes = boxes[good], scores[good], classes[good]
        order = reference.best_first(scores)
        boxes, scores, classes = boxes[order], scores[order], classes[order]
        kept = reference.nms(boxes, nms_iou)
        down, across = frame_hw[n].astype(F) / image_hw[n].astype(F)
        scale = np.array([across, down, across, down], F)
        first = kept[:max_regions]
        results.append(
            (boxes[first] * scale, scores[first], classes[first], len(kept) > max_regions)
        )
    return results


def random_inputs(seed, *, classes=2, images=2, slots=30, ties=False, spoil=0.0):
    rng = np.random.default_rng(seed)

    def spoilt(array):
        bad = rng.random(array.shape) < spoil
        array[bad] = rng.choice([np.nan, np.inf, -np.inf, 1e30], bad.sum())
        return array.astype(F)

    logits = rng.normal(0, 3, (images * slots, classes))
    corners = rng.uniform(-5, 60, (images, slots, 2))  # at and over the border
    sides = rng.uniform(0, 25, (images, slots, 2)) * (
        rng.random((images, slots, 1)) > 0.1
    )  # some empty
    inputs = (
        spoilt(logits.round() if ties else logits),
        spoilt(rng.normal(0, 1, (images * slots, 4 * classes))),
        np.concatenate([corners, corners + sides], axis=2).astype(F),
        rng.integers(0, slots + 1, images).astype(np.int32),
    )
    options = {
        "image_hw": rng.integers(20, 64, (images, 2)).astype(np.int32),
        "frame_hw": rng.integers(1, 2000, (images, 2)).astype(np.int32),
        "score_threshold": 0.3,
        "nms_iou": 0.4,
        "max_regions": 10,
    }
    return inputs, options


def assert_same(got, expected):
    boxes, scores, classes, counts, saturated = got
    assert classes.dtype == np.uint8
    assert counts.tolist() == [len(one[1]) for one in expected]
    assert saturated.tolist() == [one[3] for one in expected]
    for n, (one_boxes, one_scores, one_classes, _) in enumerate(expected):
        np.testing.assert_array_equal(boxes[n, : counts[n]], one_boxes)
        np.testing.assert_array_equal(scores[n, : counts[n]], one_scores)
        np.testing.assert_array_equal(classes[n, : counts[n]], one_classes)
        assert not boxes[n, counts[n] :].any()
        assert not scores[n, counts[n] :].any()
        assert not classes[n, counts[n] :].any()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NaN and infinity in the reference
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.sampled_from([2, 3, 4, 5, 16]),
    images=st.integers(0, 3),
    slots=st.integers(0, 40),
    ties=st.booleans(),
    spoil=st.sampled_from([0.0, 0.1, 1.0]),
    score_threshold=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    nms_iou=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    max_regions=st.integers(1, 40),
)
def test_matches_the_reference(
    seed, classes, images, slots, ties, spoil, score_threshold, nms_iou, max_regions
):
    inputs, options = random_inputs(
        seed, classes=classes, images=images, slots=slots, ties=ties, spoil=spoil
    )
    options |= {"score_threshold": score_threshold, "nms_iou": nms_iou, "max_regions": max_regions}
    expected = reference_detections(*inputs, **options)
    for threads in (1, 4):
        assert_same(ops.postprocess_detections(*inputs, **options, threads=threads), expected)


@pytest.mark.parametrize("seed", range(3))
def test_matches_torchvision(seed):
    (logits, deltas, proposals, _), options = random_inputs(seed, slots=300)
    options |= {"max_regions": 60}
    counts = np.array([300, 211], np.int32)
    heads = RoIHeads(
        *(None, None, None, 0.5, 0.5, 512, 0.25, None),
        options["score_threshold"],
        options["nms_iou"],
        options["max_regions"],
    )
    live = np.concatenate([np.arange(300), 300 + np.arange(211)])
    image_hw = [tuple(hw) for hw in options["image_hw"].tolist()]
    boxes, scores, _ = heads.postprocess_detections(
        torch.from_numpy(logits[live]),
        torch.from_numpy(deltas[live]),
        [torch.from_numpy(proposals[n, :count]) for n, count in enumerate(counts)],
        image_hw,
    )
    transform = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3).eval()
    expected = transform.postprocess(
        [{"boxes": b, "scores": s} for b, s in zip(boxes, scores, strict=True)],
        image_hw,
        [tuple(hw) for hw in options["frame_hw"].tolist()],
    )
    got_boxes, got_scores, got_classes, got_counts, _ = ops.postprocess_detections(
        logits, deltas, proposals, counts, **options
    )
    assert got_counts.tolist() == [len(one["scores"]) for one in expected]
    for n, one in enumerate(expected):
        np.testing.assert_allclose(got_scores[n, : got_counts[n]], one["scores"].numpy(), rtol=1e-6)
        np.testing.assert_allclose(
            got_boxes[n, : got_counts[n]], one["boxes"].numpy(), rtol=1e-5, atol=1e-2
        )
        assert (got_classes[n, : got_counts[n]] == 1).all()


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_matches_torchvision_over_all_classes(classes):
    (logits, deltas, proposals, counts), options = random_inputs(
        5, classes=classes, images=1, slots=300
    )
    probabilities = torch.from_numpy(logits[: counts[0]]).softmax(1)
    scores, labels = probabilities[:, 1:].max(1)
    labels = labels + 1
    decoded = BoxCoder((10, 10, 5, 5)).decode(
        torch.from_numpy(deltas[: counts[0]]), [torch.from_numpy(proposals[0, : counts[0]])]
    )
    boxes = decoded[torch.arange(len(labels)), labels]
    height, width = options["image_hw"][0].tolist()
    boxes = clip_boxes_to_image(boxes, (height, width))
    sound = torch.zeros(len(boxes), dtype=torch.bool)
    sound[remove_small_boxes(boxes, 1e-2)] = True
    sound &= scores > options["score_threshold"]
    boxes, scores, labels = boxes[sound], scores[sound], labels[sound]
    kept = nms(boxes, scores, options["nms_iou"])[: options["max_regions"]]
    got_boxes, got_scores, got_classes, got_counts, _ = ops.postprocess_detections(
        logits,
        deltas,
        proposals,
        counts,
        **options | {"frame_hw": options["image_hw"]},
    )
    assert got_counts.tolist() == [len(kept)]
    assert len(set(labels[kept].tolist())) > 1 or classes == 2
    np.testing.assert_array_equal(got_classes[0, : len(kept)], labels[kept].numpy())
    np.testing.assert_allclose(got_scores[0, : len(kept)], scores[kept].numpy(), rtol=1e-5)
    np.testing.assert_allclose(got_boxes[0, : len(kept)], boxes[kept].numpy(), rtol=1e-5, atol=1e-2)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(5))
def test_two_classes_score_as_the_sigmoid_of_their_difference(seed):
    (logits, deltas, _, _), options = random_inputs(seed, slots=200)
    # Far apart, so that nothing is suppressed, with logits from where they count to where they overflow.
    logits *= F(10) ** np.arange(-2, 3, dtype=F).repeat(80)[:, None]
    x = np.arange(400, dtype=F).reshape(2, 200) * 10
    proposals = np.stack([x, 0 * x, x + 8, 0 * x + 8], axis=2)
    size = np.full((2, 2), 5000, np.int32)
    options |= {"image_hw": size, "frame_hw": size, "score_threshold": 0.0, "max_regions": 200}
    counts = np.array([200, 200], np.int32)
    _, scores, _, kept, _ = ops.postprocess_detections(
        logits, 0 * deltas, proposals, counts, **options
    )
    odds = np.exp((logits[:, 0] - logits[:, 1]).astype(np.float64)).astype(F)
    for n, expected in enumerate((F(1) / (F(1) + odds)).reshape(2, 200)):
        expected = np.sort(expected[expected > 0])[::-1]
        np.testing.assert_array_equal(scores[n, : kept[n]], expected)


@pytest.mark.parametrize("more", [1, 14])
def test_classes_that_cannot_be_change_nothing(more):
    inputs, options = random_inputs(7, slots=100, ties=True)
    logits, deltas, *rest = inputs
    shunned = np.full((len(logits), more), -np.inf, F)
    unread = np.full((len(deltas), 4 * more), np.nan, F)
    expected = ops.postprocess_detections(*inputs, **options)
    got = ops.postprocess_detections(
        np.hstack([logits, shunned]), np.hstack([deltas, unread]), *rest, **options
    )
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_cell_comes_out_once_whatever_its_classes():
    # Two proposals of one white cell: one read as a red cell, a surer one as a white cell; and a platelet beside it.
    boxes = np.array([[[0, 0, 20, 20], [1, 0, 20, 20], [30, 5, 36, 11]]], F)
    logits = np.array([[0, 3, 2, 0], [0, 2, 5, 0], [0, 0, 0, 1]], F)
    size = np.array([[40, 40]], np.int32)
    got, _, classes, counts, _ = ops.postprocess_detections(
        logits,
        np.zeros((3, 16), F),
        boxes,
        np.array([3], np.int32),
        image_hw=size,
        frame_hw=size,
        score_threshold=0.3,
        nms_iou=0.5,
        max_regions=5,
    )
    assert counts.tolist() == [2]
    assert classes.tolist() == [[2, 3, 0, 0, 0]]
    np.testing.assert_array_equal(got[0, :2], boxes[0, 1:])


def test_of_equally_likely_classes_the_first():
    size = np.array([[40, 40]], np.int32)
    deltas = np.zeros((1, 16), F)
    deltas[0, 4:8], deltas[0, 8:12] = (
        [5, 0, 0, 0],
        [0, 5, 0, 0],
    )  # half a side to the right, or down
    boxes, scores, classes, _, _ = ops.postprocess_detections(
        np.array([[0, 1, 1, 0]], F),
        deltas,
        np.array([[[10, 10, 20, 20]]], F),
        np.array([1], np.int32),
        image_hw=size,
        frame_hw=size,
        score_threshold=0.3,
        nms_iou=0.5,
        max_regions=1,
    )
    assert classes.tolist() == [[1]]
    np.testing.assert_allclose(scores, np.exp(1) / (2 + 2 * np.exp(1)), rtol=1e-6)
    np.testing.assert_array_equal(boxes, [[[15, 10, 25, 20]]])


def row_of_boxes(count):
    """Boxes that do not overlap, all with the same score."""
    x = np.arange(count, dtype=F) * 10
    boxes = np.stack([x, 0 * x, x + 8, 0 * x + 8], axis=1)[None]
    return np.tile(np.array([0, 2], F), (count, 1)), np.zeros((count, 8), F), boxes


@pytest.mark.parametrize(("max_regions", "saturated"), [(7, True), (8, False), (9, False)])
def test_saturated_says_that_the_cap_left_regions_out(max_regions, saturated):
    size = np.array([[8, 200]], np.int32)
    boxes, _, _, counts, full = ops.postprocess_detections(
        *row_of_boxes(8),
        np.array([8], np.int32),
        image_hw=size,
        frame_hw=size,
        score_threshold=0.5,
        nms_iou=0.5,
        max_regions=max_regions,
    )
    assert full.tolist() == [saturated]
    kept = min(8, max_regions)
    assert counts.tolist() == [kept]
    np.testing.assert_array_equal(boxes[0, :kept, 0], 10 * np.arange(kept))  # equal scores: by slot


@pytest.mark.parametrize(("below", "suppressed"), [(True, True), (False, False)])
def test_a_box_at_the_threshold_itself_stays(below, suppressed):
    # Two boxes with an IoU of exactly 1/2, against 1/2 and the number just below it.
    boxes = np.array([[[0, 0, 2, 1], [0, 0, 1, 1]]], F)
    size = np.array([[4, 4]], np.int32)
    _, _, _, counts, _ = ops.postprocess_detections(
        np.array([[0, 2], [0, 1]], F),
        np.zeros((2, 8), F),
        boxes,
        np.array([2], np.int32),
        image_hw=size,
        frame_hw=size,
        score_threshold=0.1,
        nms_iou=float(np.nextafter(0.5, 0)) if below else 0.5,
        max_regions=5,
    )
    assert counts.tolist() == [1 if suppressed else 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_threshold": -0.1}, r"score_threshold must lie in 0..1 \(got -0.1\)"),
        ({"nms_iou": 2.0}, r"nms_iou must lie in 0..1 \(got 2.0\)"),
        ({"max_regions": 0}, r"max_regions must be at least 1 \(got 0\)"),
        ({"threads": -3}, r"threads must be at least 1 \(got -3\)"),
        ({"frame_hw": np.array([[5, 5], [0, 9]], np.int32)}, r"frame_hw .*got \[0, 9\] in row 1"),
        (
            {"image_hw": np.ones((2, 3), np.int32)},
            r"image_hw must be int32 \[2, 2\] \(got int32 \[2, 3\]\)",
        ),
    ],
)
def test_says_which_option_is_wrong(change, message):
    inputs, options = random_inputs(0)
    with pytest.raises(ValueError, match=message):
        ops.postprocess_detections(*inputs, **options | change)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (
            0,
            np.zeros((59, 2), F),
            r"class_logits must be float32 \[60, C\] \(got float32 \[59, 2\]\)",
        ),
        (0, np.zeros((60, 1), F), r"class_logits must have 2 to 16 columns \(got 1\)"),
        (0, np.zeros((60, 17), F), r"class_logits must have 2 to 16 columns \(got 17\)"),
        (
            0,
            np.zeros((60, 3), F),
            r"box_deltas must be float32 \[60, 12\] \(got float32 \[60, 8\]\)",
        ),
        (
            1,
            np.zeros((59, 8), F),
            r"box_deltas must be float32 \[60, 8\] \(got float32 \[59, 8\]\)",
        ),
        (1, np.zeros((60, 16), F)[:, ::2], r"box_deltas must be C-contiguous"),
        (2, [[1.0]], r"proposals must be a float32 \[N, K, 4\] array \(got list\)"),
        (3, np.array([31, 0], np.int32), r"counts must lie in 0..30 \(got \[31, 0\]\)"),
        (3, np.array([0, -1], np.int32), r"counts must lie in 0..30 \(got \[0, -1\]\)"),
    ],
)
def test_says_which_array_is_wrong(position, value, message):
    inputs, options = random_inputs(0)
    inputs = [value if k == position else array for k, array in enumerate(inputs)]
    with pytest.raises(ValueError, match=message):
        ops.postprocess_detections(*inputs, **options)
