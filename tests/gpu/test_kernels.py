"""Every kernel, launched through _kernels.cuda, gives what rbc_engine.devices.cpu.ops gives; outputs start out as garbage.

With a GPU the inputs are as large as in use, and every launch is made a second time through a CUDA graph. The
emulator runs the same code on small ones.
"""

import numpy as np
import pytest

from rbc_engine.devices.anchors import base_anchors
from rbc_engine.devices.cpu import ops

from .machines import GARBAGE

F, H, INT = np.float32, np.float16, np.int32
FRAME = np.dtype([("pixels", "<u8"), ("height", "<i4"), ("width", "<i4"), ("row_bytes", "<i8")])
FP16 = pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])


class Call:
    """One launch: `inputs` by name, `outputs` by name as (shape, dtype); other arguments as they are."""

    def __init__(self, machine, op, inputs, outputs, *, workspace=None, **arguments):
        put = machine.put
        addresses = {
            name: [put(array) for array in value] if isinstance(value, list) else put(value)
            for name, value in inputs.items()
        }
        for name, (shape, dtype) in outputs.items():
            count = int(np.prod(shape)) * np.dtype(dtype).itemsize
            addresses[name] = put(np.full(count, GARBAGE, np.uint8))
        if workspace is not None:
            addresses["workspace"] = put(np.full(workspace, GARBAGE, np.uint8))
        machine.run(
            lambda stream: getattr(machine.cuda, op)(**addresses, **arguments, stream=stream),
        )
        for name, (shape, dtype) in outputs.items():
            setattr(self, name, machine.get(addresses[name], shape, dtype))


def frame_table(machine, frames):
    rows = [
        (machine.put(frame), frame.shape[0], frame.shape[1], frame.shape[1] * 3) for frame in frames
    ]
    return np.array(rows, FRAME)


def random_frames(rng, machine, count):
    low, high = (500, 1500) if machine.is_gpu else (10, 60)
    return [rng.integers(0, 256, (*rng.integers(low, high, 2), 3), np.uint8) for _ in range(count)]


def rounded(values, *, fp16):
    return values.astype(H) if fp16 else values


@pytest.mark.parametrize("background_level", [None, 170.0])
def test_resize_letterbox(machine, background_level):
    rng = np.random.default_rng(0)
    frames = random_frames(rng, machine, 3)
    canvas_hw = (320, 416) if machine.is_gpu else (20, 70)
    resized_hw = rng.integers(1, np.array(canvas_hw) + 1, (3, 2)).astype(INT)
    shape = (3, *canvas_hw, 3)
    got = Call(
        machine,
        "resize_letterbox",
        {"frames": frame_table(machine, frames), "resized_hw": resized_hw},
        {"canvases": (shape, np.uint8)},
        workspace=machine.cuda.resize_letterbox_workspace_bytes(count=3),
        count=3,
        canvas_hw=canvas_hw,
        background_level=background_level or 0,
    )
    expected = ops.resize_letterbox(
        frames, resized_hw, canvas_hw=canvas_hw, background_level=background_level
    )
    np.testing.assert_array_equal(got.canvases, expected)


@FP16
def test_crop_resize(machine, fp16):
    rng = np.random.default_rng(1)
    frames = random_frames(rng, machine, 2)
    count, size = (300, 64) if machine.is_gpu else (5, 20)
    corners = rng.uniform(-40, frames[0].shape[1], (count, 2))
    sides = rng.uniform(0.1, 200, (count, 2))
    sides[0] = 3000  # more taps than are kept
    windows = np.concatenate([corners, corners + sides], axis=1).astype(F)
    frame_index = rng.integers(0, 2, count).astype(INT)
    options = {"size_px": size, "mean": (120.0, 130.0, 140.0), "std": (50.0, 60.0, 70.5)}
    got = Call(
        machine,
        "crop_resize",
        {
            "frames": frame_table(machine, frames),
            "windows": windows,
            "frame_index": frame_index,
        },
        {"patches": ((count, 3, size, size), H if fp16 else F)},
        count=count,
        fp16=fp16,
        **options,
    )
    expected = ops.crop_resize(frames, windows, frame_index, **options)
    np.testing.assert_array_equal(got.patches, rounded(expected, fp16=fp16))


@FP16
@pytest.mark.parametrize("ties", [False, True])
def test_generate_proposals(machine, fp16, ties):
    rng = np.random.default_rng(2)
    images, anchors = 2, 3
    sizes = [(80, 104), (40, 52), (20, 26)] if machine.is_gpu else [(9, 11), (5, 6), (3, 3)]
    logits = [rng.normal(0, 3, (images, anchors, *size)).astype(H) for size in sizes]
    if ties:
        logits = [np.round(level) for level in logits]
    deltas = [rng.normal(0, 0.5, (images, 4 * anchors, *size)).astype(H) for size in sizes]
    deltas[0][0, 0, :2] = np.nan
    bases = [base_anchors([16 << level], [0.5, 1.0, 2.0]) for level in range(3)]
    image_hw = np.array([[4 * sizes[0][0], 4 * sizes[0][1]], [30, 25]], INT)
    per_level, keep = (1000, 1000) if machine.is_gpu else (60, 50)
    options = {"strides_px": [4, 8, 16], "per_level": per_level, "keep": keep, "nms_iou": 0.7}
    dtype = H if fp16 else F
    got = Call(
        machine,
        "generate_proposals",
        {
            "objectness": [level.astype(dtype) for level in logits],
            "deltas": [level.astype(dtype) for level in deltas],
            "base_anchors": bases,
            "image_hw": image_hw,
        },
        {"boxes": ((images, keep, 4), F), "counts": ((images,), INT)},
        workspace=machine.cuda.generate_proposals_workspace_bytes(
            levels=3, images=images, per_level=per_level
        ),
        shapes=[(anchors, *size) for size in sizes],
        images=images,
        fp16=fp16,
        **options,
    )
    boxes, counts = ops.generate_proposals(
        [level.astype(F) for level in logits],
        [level.astype(F) for level in deltas],
        base_anchors=bases,
        image_hw=image_hw,
        **options,
    )
    np.testing.assert_array_equal(got.counts, counts)
    np.testing.assert_array_equal(got.boxes, boxes)


def random_boxes(rng, images, slots, extent):
    corners = rng.uniform(-5, extent, (images, slots, 2))
    sides = rng.uniform(0, extent / 2, (images, slots, 2)) * (rng.random((images, slots, 1)) > 0.1)
    return np.concatenate([corners, corners + sides], axis=2).astype(F)


@FP16
def test_roi_align(machine, fp16):
    rng = np.random.default_rng(3)
    images, slots, channels = (4, 300, 128) if machine.is_gpu else (2, 3, 35)
    sizes = [(80, 104), (40, 52), (20, 26)] if machine.is_gpu else [(16, 12), (8, 6), (4, 3)]
    features = [rng.normal(0, 1, (images, channels, *size)).astype(H) for size in sizes]
    boxes = random_boxes(rng, images, slots, 4 * sizes[0][1])
    counts = np.linspace(0, slots, images).astype(INT)
    pooling = {
        "output_size": 7,
        "sampling_ratio": 2,
        "canonical_px": 40.0,
        "canonical_level": 3,
    }
    dtype = H if fp16 else F
    got = Call(
        machine,
        "roi_align",
        {
            "features": [level.astype(dtype) for level in features],
            "boxes": boxes,
            "counts": counts,
        },
        {"pooled": ((images * slots, channels, 7, 7), dtype)},
        level_hw=sizes,
        images=images,
        channels=channels,
        slots=slots,
        finest_level=2,
        fp16=fp16,
        **pooling,
    )
    floats = [level.astype(F) for level in features]
    expected = ops.roi_align(floats, boxes, counts, strides_px=[4, 8, 16], **pooling)
    np.testing.assert_array_equal(got.pooled, rounded(expected, fp16=fp16))


@FP16
@pytest.mark.parametrize("class_count", [2, 4, 16])
@pytest.mark.parametrize("ties", [False, True])
def test_postprocess_detections(machine, fp16, ties, class_count):
    rng = np.random.default_rng(4)
    images, slots, most = (8, 1000, 100) if machine.is_gpu else (2, 90, 20)
    logits = rng.normal(0, 3, (images * slots, class_count)).astype(H)
    if ties:
        logits = np.round(logits)
    logits[3] = np.nan
    deltas = rng.normal(0, 1, (images * slots, 4 * class_count)).astype(H)
    proposals = random_boxes(rng, images, slots, 400 if machine.is_gpu else 100)
    counts = np.linspace(2, slots, images).astype(INT)
    image_hw = np.full((images, 2), (320, 416) if machine.is_gpu else (80, 100), INT)
    frame_hw = rng.integers(1, 2000, (images, 2)).astype(INT)
    options = {"score_threshold": 0.05, "nms_iou": 0.5, "max_regions": most}
    dtype = H if fp16 else F
    got = Call(
        machine,
        "postprocess_detections",
        {
            "class_logits": logits.astype(dtype),
            "box_deltas": deltas.astype(dtype),
            "proposals": proposals,
            "proposal_counts": counts,
            "image_hw": image_hw,
            "frame_hw": frame_hw,
        },
        {
            "boxes": ((images, most, 4), F),
            "scores": ((images, most), F),
            "classes": ((images, most), np.uint8),
            "counts": ((images,), INT),
            "saturated": ((images,), np.uint8),
        },
        workspace=machine.cuda.postprocess_detections_workspace_bytes(images=images, slots=slots),
        images=images,
        slots=slots,
        class_count=class_count,
        fp16=fp16,
        **options,
    )
    expected = ops.postprocess_detections(
        logits.astype(F),
        deltas.astype(F),
        proposals,
        counts,
        image_hw=image_hw,
        frame_hw=frame_hw,
        **options,
    )
    names = ("boxes", "scores", "classes", "counts", "saturated")
    assert expected[-1].any()
    assert not expected[-1].all()
    assert (
        class_count // 2 < len(set(expected[2].flat)) <= class_count
    )  # most kinds, and 0 where nothing is
    for name, array in zip(names, expected, strict=True):
        np.testing.assert_array_equal(getattr(got, name), array, err_msg=name)


@pytest.mark.parametrize("channels_last", [False, True])
def test_fused_heads(machine, channels_last):
    rng = np.random.default_rng(5)
    patches, features, hidden, types = (200, 2048, 512, 12) if machine.is_gpu else (66, 128, 64, 2)
    feature_map = rng.gamma(1.0, 1.0, (patches, features, 4)).astype(H)
    weights = {
        "first_weight": rng.standard_normal((types * hidden, features)) / features**0.5,
        "first_bias": rng.standard_normal(types * hidden) * 0.3,
        "second_weight": rng.standard_normal((types, hidden)) / hidden**0.5 * 2,
        "second_bias": rng.standard_normal(types),
    }
    weights = {name: array.astype(H) for name, array in weights.items()}
    shape = {"features": features, "hidden": hidden, "types": types}
    got = Call(
        machine,
        "fused_heads",
        {
            "feature_map": feature_map.transpose(0, 2, 1) if channels_last else feature_map,
            **weights,
        },
        {"probabilities": ((patches, types), F)},
        workspace=machine.cuda.fused_heads_workspace_bytes(patches=patches, **shape),
        channels_last=channels_last,
        patches=patches,
        pixels=4,
        **shape,
    )
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    pooled = feature_map.astype(np.float64).mean(axis=2).astype(H).astype(np.float64)
    units = np.maximum(pooled @ wide["first_weight"].T + wide["first_bias"], 0)
    units = units.reshape(patches, types, hidden)
    logits = (units * wide["second_weight"]).sum(axis=2) + wide["second_bias"]
    np.testing.assert_allclose(got.probabilities, 1 / (1 + np.exp(-logits)), rtol=0, atol=5e-4)
