"""The kernels, with their arguments checked: one function an op.

Frames are uint8 [H, W, 3] RGB arrays whose pixels are contiguous within a row. Results are new
arrays. `threads` is how many CPU threads an op may use; a lane that owns one core passes 1. The
result does not depend on it. Every op raises ValueError naming the argument at fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rbc_engine import _kernels
from rbc_engine.devices.base import RGB
from rbc_engine.devices.checks import (
    check_array,
    check_at_least,
    check_background_level,
    check_class_count,
    check_counts,
    check_fraction,
    check_frames,
    check_levels,
    check_pyramid_strides,
    check_sizes,
    check_windows,
)
from rbc_engine.types.arrays import Float32, Int32, UInt8

__all__ = [
    "crop_resize",
    "generate_proposals",
    "postprocess_detections",
    "resize_letterbox",
    "roi_align",
]


def resize_letterbox(
    frames: Sequence[UInt8],
    resized_hw: Int32,
    *,
    canvas_hw: tuple[int, int],
    background_level: float | None = None,
    threads: int = 1,
) -> UInt8:
    """Resize frames, expose them alike, and place each at the top left of its canvas.

    The rest of the canvas has the frame's background colour.

    Plain bilinear with half-pixel centres, rounded to uint8: torchvision's
    GeneralizedRCNNTransform. The background is what an empty part of the smear looks like: of each
    channel the level that nine tenths of the samples of a grid of 16 by 16 do not exceed.

    frames: N arrays uint8 [H, W, 3].
    resized_hw: int32 [N, 2], height and width of each frame on its canvas, 1..canvas_hw.
    background_level: 1..255. A frame's levels are multiplied by what brings the mean of its
        background there, but by no less than 0.5 and no more than 3. None leaves them as they are.

    Returns uint8 [N, canvas height, canvas width, 3].
    """
    check_frames(frames)
    check_sizes("resized_hw", resized_hw, len(frames))
    height, width = canvas_hw
    if height < 1 or width < 1:
        raise ValueError(f"canvas_hw must be positive (got {canvas_hw})")
    if (resized_hw > (height, width)).any():
        raise ValueError(
            f"resized_hw must lie in 1..canvas_hw {canvas_hw} (got {resized_hw.tolist()})"
        )
    level = check_background_level(background_level)
    check_at_least("threads", threads, 1)
    canvases = np.empty((len(frames), height, width, 3), np.uint8)
    _kernels.resize_letterbox(list(frames), resized_hw, level, canvases, threads)
    return canvases


def generate_proposals(
    objectness: Sequence[Float32],
    deltas: Sequence[Float32],
    *,
    base_anchors: Sequence[Float32],
    strides_px: Sequence[int],
    image_hw: Int32,
    per_level: int,
    keep: int,
    nms_iou: float,
    threads: int = 1,
) -> tuple[Float32, Int32]:
    """Turn the outputs of the region proposal network into proposals, surest first.

    The best `per_level` anchors of a level by logit are decoded, clipped to the image and thinned
    by NMS within the level; the best `keep` of all levels are proposals: torchvision's
    RegionProposalNetwork.filter_proposals. Equal logits rank by level, then by (y * width + x) * A
    + a. A NaN drops its candidate.

    objectness: for each level, float32 [N, A, h, w], logits.
    deltas: for each level, float32 [N, 4 A, h, w]; dx dy dw dh of anchor a in channels 4a..4a+3.
    base_anchors: for each level, float32 [A, 4], around (0, 0), canvas px.
    strides_px: for each level, canvas px between neighbouring cells.
    image_hw: int32 [N, 2], height and width of the part of the canvas that holds the image.
    nms_iou: 0..1; of two boxes that overlap by more, the less sure is dropped.

    Returns float32 [N, keep, 4] x0 y0 x1 y1 in canvas px, zero from the count on, and counts int32
    [N].
    """
    level_count = len(objectness)
    if not level_count:
        raise ValueError("objectness must have at least one level (got none)")
    for name, values in (
        ("deltas", deltas),
        ("base_anchors", base_anchors),
        ("strides_px", strides_px),
    ):
        if len(values) != level_count:
            raise ValueError(
                f"{name} needs one entry for each level of objectness, {level_count} (got "
                f"{len(values)})"
            )
    images: int | str = "N"
    for level in range(level_count):
        check_array(f"objectness[{level}]", objectness[level], np.float32, (images, "A", "h", "w"))
        images, anchors, height, width = objectness[level].shape
        shape = (images, 4 * anchors, height, width)
        check_array(f"deltas[{level}]", deltas[level], np.float32, shape)
        check_array(f"base_anchors[{level}]", base_anchors[level], np.float32, (anchors, 4))
        check_at_least(f"strides_px[{level}]", strides_px[level], 1)
    count = objectness[0].shape[0]
    check_sizes("image_hw", image_hw, count)
    check_at_least("per_level", per_level, 1)
    check_at_least("keep", keep, 1)
    check_fraction("nms_iou", nms_iou)
    check_at_least("threads", threads, 1)
    boxes = np.empty((count, keep, 4), np.float32)
    counts = np.empty(count, np.int32)
    _kernels.generate_proposals(
        list(objectness),
        list(deltas),
        list(base_anchors),
        list(strides_px),
        image_hw,
        per_level,
        nms_iou,
        boxes,
        counts,
        threads,
    )
    return boxes, counts


def roi_align(
    features: Sequence[Float32],
    boxes: Float32,
    counts: Int32,
    *,
    strides_px: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    canonical_px: float,
    canonical_level: int,
    threads: int = 1,
) -> Float32:
    """Pool each box from the level of the feature pyramid that fits its size.

    torchvision's MultiScaleRoIAlign (aligned=False), with its rule for the level.

    features: for each level, finest first, float32 [N, C, h, w].
    boxes: float32 [N, K, 4], x0 y0 x1 y1 in canvas px; the first counts[n] of image n are read.
    counts: int32 [N], 0..K.
    strides_px: for each level, canvas px a feature pixel: powers of two, doubling.
    output_size: bins a side, S.
    sampling_ratio: samples a bin and side.
    canonical_px, canonical_level: a box of this side is read from the level with stride 2 **
        canonical_level.

    Returns float32 [N * K, C, S, S]; rows without a box are zero.
    """
    if not len(features):
        raise ValueError("features must have at least one level (got none)")
    check_array("boxes", boxes, np.float32, ("N", "K", 4))
    images, slots, _ = boxes.shape
    channels: int | str = "C"
    for level, array in enumerate(features):
        check_array(f"features[{level}]", array, np.float32, (images, channels, "h", "w"))
        if 0 in array.shape[1:]:
            raise ValueError(f"features[{level}] must not be empty (got {list(array.shape)})")
        channels = array.shape[1]
    check_counts("counts", counts, images, slots)
    check_pyramid_strides(strides_px, len(features))
    check_at_least("output_size", output_size, 1)
    check_at_least("sampling_ratio", sampling_ratio, 1)
    if not 0 < canonical_px < np.inf:
        raise ValueError(f"canonical_px must be positive (got {canonical_px})")
    check_at_least("canonical_level", canonical_level, 0)
    check_at_least("threads", threads, 1)
    shape = (images * slots, features[0].shape[1], output_size, output_size)
    pooled = np.empty(shape, np.float32)
    finest_level = strides_px[0].bit_length() - 1
    _kernels.roi_align(
        list(features),
        boxes,
        counts,
        sampling_ratio,
        finest_level,
        canonical_level,
        canonical_px,
        pooled,
        threads,
    )
    return pooled


def postprocess_detections(
    class_logits: Float32,
    box_deltas: Float32,
    proposals: Float32,
    counts: Int32,
    *,
    image_hw: Int32,
    frame_hw: Int32,
    score_threshold: float,
    nms_iou: float,
    max_regions: int,
    threads: int = 1,
) -> tuple[Float32, Float32, UInt8, Int32, npt.NDArray[np.bool_]]:
    """Turn the outputs of the box head into regions of the full-resolution frame, surest first.

    torchvision's RoIHeads.postprocess_detections and GeneralizedRCNNTransform.postprocess, but that
    a proposal is a candidate for its likeliest class alone (of equal logits the first), and that
    regions of different classes suppress each other, too: no cell comes out as two things. For one
    class beside the background there is no difference. Equal scores rank by slot. A NaN in a logit
    or in its class's deltas drops a candidate.

    class_logits: float32 [N * K, C], C from 2 to 16; class 0 is the background.
    box_deltas: float32 [N * K, 4 C]; dx dy dw dh of class c in columns 4c..4c+3.
    proposals: float32 [N, K, 4], x0 y0 x1 y1 in canvas px; the first counts[n] of image n are read.
    counts: int32 [N], 0..K.
    image_hw: int32 [N, 2], height and width of the part of the canvas that holds the image.
    frame_hw: int32 [N, 2], height and width of the frame at full resolution.
    score_threshold: 0..1; regions must score more.
    nms_iou: 0..1; of two boxes that overlap by more, the less sure is dropped.
    max_regions: D, size of the fixed output.

    Returns boxes float32 [N, D, 4] in frame px, scores float32 [N, D] and classes uint8 [N, D],
    1..C-1, all three zero from the count on; counts int32 [N]; saturated bool [N], true where more
    than D survived, so that the least sure were left out.
    """
    check_array("proposals", proposals, np.float32, ("N", "K", 4))
    images, slots, _ = proposals.shape
    check_array("class_logits", class_logits, np.float32, (images * slots, "C"))
    class_count = check_class_count(class_logits.shape[1])
    check_array("box_deltas", box_deltas, np.float32, (images * slots, 4 * class_count))
    check_counts("counts", counts, images, slots)
    check_sizes("image_hw", image_hw, images)
    check_sizes("frame_hw", frame_hw, images)
    check_fraction("score_threshold", score_threshold)
    check_fraction("nms_iou", nms_iou)
    check_at_least("max_regions", max_regions, 1)
    check_at_least("threads", threads, 1)
    boxes = np.empty((images, max_regions, 4), np.float32)
    scores = np.empty((images, max_regions), np.float32)
    classes = np.empty((images, max_regions), np.uint8)
    region_counts = np.empty(images, np.int32)
    saturated = np.empty(images, np.bool_)
    _kernels.postprocess_detections(
        class_logits,
        box_deltas,
        proposals,
        counts,
        image_hw,
        frame_hw,
        score_threshold,
        nms_iou,
        boxes,
        scores,
        classes,
        region_counts,
        saturated,
        threads,
    )
    return boxes, scores, classes, region_counts, saturated


def crop_resize(
    frames: Sequence[UInt8],
    windows: Float32,
    frame_index: Int32,
    *,
    size_px: int,
    mean: RGB,
    std: RGB,
    threads: int = 1,
) -> Float32:
    """Cut windows out of frames, resize each to a square patch and normalise.

    Triangle filter, antialiased when shrinking (as Pillow's BILINEAR and torch's antialias=True).
    Pixels outside the frame count as `mean`, so they come out as zero.

    frames: N arrays uint8 [H, W, 3].
    windows: float32 [R, 4], x0 y0 x1 y1 in frame pixels, x1 > x0, y1 > y0, finite; may leave the
        frame.
    frame_index: int32 [R], 0..N-1.
    mean, std: grey levels 0..255 a channel; std > 0.

    Returns float32 [R, 3, size_px, size_px].
    """
    check_frames(frames)
    check_windows(windows, frame_index, len(frames))
    check_at_least("size_px", size_px, 1)
    check_levels("mean", mean)
    if len(std) != 3 or any(not 0 < level < np.inf for level in std):
        raise ValueError(f"std must be three positive grey levels (got {tuple(std)})")
    check_at_least("threads", threads, 1)
    patches = np.empty((len(windows), 3, size_px, size_px), np.float32)
    _kernels.crop_resize(
        list(frames), windows, frame_index, list(mean), list(std), patches, threads
    )
    return patches
