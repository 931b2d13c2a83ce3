"""The functions of rbc_engine.devices.cpu.ops for arrays on a GPU, on the stream of a lane.

Arguments that are numpy arrays (sizes, anchors, windows) are uploaded first. Networks compute in
fp16, so their arrays, and the patches for the next one, are fp16. A result is overwritten by the
next call of the same op in the same lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.devices.base import RGB
from rbc_engine.devices.checks import (
    check_at_least,
    check_background_level,
    check_class_count,
    check_fraction,
    check_levels,
    check_sizes,
    check_windows,
)
from rbc_engine.devices.cuda.memory import CudaArray, LaneMemory, explain_cuda
from rbc_engine.types.arrays import Float32, Int32

__all__ = ["CudaOps"]

_FRAME = np.dtype([("pixels", "<u8"), ("height", "<i4"), ("width", "<i4"), ("row_bytes", "<i8")])
_HALF, _FLOAT, _INT, _BYTE = (
    np.dtype(kind) for kind in (np.float16, np.float32, np.int32, np.uint8)
)


class CudaOps:
    """Run the kernels on a GPU. Every op raises ValueError naming the argument at fault."""

    def __init__(self, memory: LaneMemory, kernels: Any) -> None:
        self._memory = memory
        self._kernels = kernels
        self._constants: dict[bytes, CudaArray] = {}

    def resize_letterbox(
        self,
        frames: Sequence[CudaArray],
        resized_hw: Int32,
        *,
        canvas_hw: tuple[int, int],
        background_level: float | None = None,
        threads: int = 1,
    ) -> CudaArray:
        """See rbc_engine.devices.cpu.ops.resize_letterbox.

        Returns uint8 [N, canvas height, canvas width, 3].
        """
        check_sizes("resized_hw", resized_hw, len(frames))
        if (resized_hw > canvas_hw).any():
            raise ValueError(
                f"resized_hw must lie in 1..canvas_hw {canvas_hw} (got {resized_hw.tolist()})"
            )
        level = check_background_level(background_level)
        table = self._frame_table(frames)
        sizes = self._memory.upload(resized_hw)
        workspace = self._workspace("resize_letterbox", count=len(frames))
        canvases = self._memory.result("resize_letterbox", 0, (len(frames), *canvas_hw, 3), _BYTE)
        self._launch(
            "resize_letterbox",
            frames=table.address,
            count=len(frames),
            resized_hw=sizes.address,
            canvas_hw=tuple(canvas_hw),
            background_level=level,
            workspace=workspace.address,
            canvases=canvases.address,
        )
        return canvases

    def generate_proposals(
        self,
        objectness: Sequence[CudaArray],
        deltas: Sequence[CudaArray],
        *,
        base_anchors: Sequence[Float32],
        strides_px: Sequence[int],
        image_hw: Int32,
        per_level: int,
        keep: int,
        nms_iou: float,
        threads: int = 1,
    ) -> tuple[CudaArray, CudaArray]:
        """See rbc_engine.devices.cpu.ops.generate_proposals."""
        if not objectness or not (
            len(objectness) == len(deltas) == len(base_anchors) == len(strides_px)
        ):
            raise ValueError(
                f"objectness, deltas, base_anchors and strides_px need one entry a level "
                f"(got {len(objectness)}, {len(deltas)}, {len(base_anchors)}, {len(strides_px)})"
            )
        images = objectness[0].shape[0]
        dtype = objectness[0].dtype
        shapes = []
        for level, (logits, moves) in enumerate(zip(objectness, deltas, strict=True)):
            _check(f"objectness[{level}]", logits, dtype, (images, None, None, None))
            _, anchors, height, width = logits.shape
            _check(f"deltas[{level}]", moves, dtype, (images, 4 * anchors, height, width))
            shapes.append((anchors, height, width))
        check_sizes("image_hw", image_hw, images)
        check_at_least("keep", keep, 1)
        check_fraction("nms_iou", nms_iou)
        workspace = self._workspace(
            "generate_proposals", levels=len(shapes), images=images, per_level=per_level
        )
        sizes = self._memory.upload(image_hw)
        boxes = self._memory.result("generate_proposals", 1, (images, keep, 4), _FLOAT)
        counts = self._memory.result("generate_proposals", 2, (images,), _INT)
        self._launch(
            "generate_proposals",
            objectness=[array.address for array in objectness],
            deltas=[array.address for array in deltas],
            base_anchors=[self._constant(anchors).address for anchors in base_anchors],
            shapes=shapes,
            strides_px=list(strides_px),
            images=images,
            image_hw=sizes.address,
            per_level=per_level,
            keep=keep,
            nms_iou=nms_iou,
            workspace=workspace.address,
            boxes=boxes.address,
            counts=counts.address,
            fp16=_is_half(dtype),
        )
        return boxes, counts

    def roi_align(
        self,
        features: Sequence[CudaArray],
        boxes: CudaArray,
        counts: CudaArray,
        *,
        strides_px: Sequence[int],
        output_size: int,
        sampling_ratio: int,
        canonical_px: float,
        canonical_level: int,
        threads: int = 1,
    ) -> CudaArray:
        """See rbc_engine.devices.cpu.ops.roi_align.

        Returns [N * K, C, S, S] of the features' type.
        """
        if not features or len(features) != len(strides_px):
            raise ValueError(
                f"features and strides_px need one entry a level (got {len(features)}, "
                f"{len(strides_px)})"
            )
        _check("boxes", boxes, _FLOAT, (None, None, 4))
        images, slots, _ = boxes.shape
        _check("counts", counts, _INT, (images,))
        dtype, channels = features[0].dtype, features[0].shape[1]
        for level, array in enumerate(features):
            _check(f"features[{level}]", array, dtype, (images, channels, None, None))
        shape = (images * slots, channels, output_size, output_size)
        pooled = self._memory.result("roi_align", 0, shape, dtype)
        self._launch(
            "roi_align",
            features=[array.address for array in features],
            level_hw=[array.shape[2:] for array in features],
            images=images,
            channels=channels,
            boxes=boxes.address,
            counts=counts.address,
            slots=slots,
            output_size=output_size,
            sampling_ratio=sampling_ratio,
            finest_level=strides_px[0].bit_length() - 1,
            canonical_level=canonical_level,
            canonical_px=canonical_px,
            pooled=pooled.address,
            fp16=_is_half(dtype),
        )
        return pooled

    def postprocess_detections(
        self,
        class_logits: CudaArray,
        box_deltas: CudaArray,
        proposals: CudaArray,
        counts: CudaArray,
        *,
        image_hw: Int32,
        frame_hw: Int32,
        score_threshold: float,
        nms_iou: float,
        max_regions: int,
        threads: int = 1,
    ) -> tuple[CudaArray, CudaArray, CudaArray, CudaArray, CudaArray]:
        """See rbc_engine.devices.cpu.ops.postprocess_detections."""
        _check("proposals", proposals, _FLOAT, (None, None, 4))
        images, slots, _ = proposals.shape
        dtype = class_logits.dtype
        _check("class_logits", class_logits, dtype, (images * slots, None))
        class_count = check_class_count(class_logits.shape[1])
        _check("box_deltas", box_deltas, dtype, (images * slots, 4 * class_count))
        _check("counts", counts, _INT, (images,))
        check_sizes("image_hw", image_hw, images)
        check_sizes("frame_hw", frame_hw, images)
        check_fraction("score_threshold", score_threshold)
        check_fraction("nms_iou", nms_iou)
        check_at_least("max_regions", max_regions, 1)
        workspace = self._workspace("postprocess_detections", images=images, slots=slots)
        image_sizes, frame_sizes = self._memory.upload(image_hw), self._memory.upload(frame_hw)
        name = "postprocess_detections"
        boxes = self._memory.result(name, 1, (images, max_regions, 4), _FLOAT)
        scores = self._memory.result(name, 2, (images, max_regions), _FLOAT)
        classes = self._memory.result(name, 3, (images, max_regions), _BYTE)
        kept = self._memory.result(name, 4, (images,), _INT)
        saturated = self._memory.result(name, 5, (images,), np.bool_)
        self._launch(
            name,
            class_logits=class_logits.address,
            box_deltas=box_deltas.address,
            proposals=proposals.address,
            proposal_counts=counts.address,
            images=images,
            slots=slots,
            class_count=class_count,
            image_hw=image_sizes.address,
            frame_hw=frame_sizes.address,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            max_regions=max_regions,
            workspace=workspace.address,
            boxes=boxes.address,
            scores=scores.address,
            classes=classes.address,
            counts=kept.address,
            saturated=saturated.address,
            fp16=_is_half(dtype),
        )
        return boxes, scores, classes, kept, saturated

    def crop_resize(
        self,
        frames: Sequence[CudaArray],
        windows: Float32,
        frame_index: Int32,
        *,
        size_px: int,
        mean: RGB,
        std: RGB,
        threads: int = 1,
    ) -> CudaArray:
        """See rbc_engine.devices.cpu.ops.crop_resize. Returns fp16 [R, 3, size_px, size_px]."""
        check_windows(windows, frame_index, len(frames))
        check_at_least("size_px", size_px, 1)
        check_levels("mean", mean)
        table = self._frame_table(frames)
        cut, index = self._memory.upload(windows), self._memory.upload(frame_index)
        shape = (len(windows), 3, size_px, size_px)
        patches = self._memory.result("crop_resize", 0, shape, _HALF)
        self._launch(
            "crop_resize",
            frames=table.address,
            windows=cut.address,
            frame_index=index.address,
            count=len(windows),
            size_px=size_px,
            mean=tuple(mean),
            std=tuple(std),
            patches=patches.address,
            fp16=True,
        )
        return patches

    def fused_heads(
        self,
        feature_map: CudaArray,
        *,
        channels_last: bool,
        first_weight: CudaArray,
        first_bias: CudaArray,
        second_weight: CudaArray,
        second_bias: CudaArray,
        owner: str,
    ) -> CudaArray:
        """Compute probabilities float32 [N, T] from the trunk's last feature map.

        feature_map: fp16 [N, C, h, w]; in memory [N, h, w, C] if channels_last.
        first_weight: fp16 [T * H, C]. first_bias: fp16 [T * H]. second_weight: fp16 [T, H].
            second_bias: fp16 [T].
        owner: whose result this is; it is overwritten by the owner's next call.
        """
        _check("feature_map", feature_map, _HALF, (None, None, None, None))
        patches, features, height, width = feature_map.shape
        types, hidden = second_weight.shape
        _check("first_weight", first_weight, _HALF, (types * hidden, features))
        _check("first_bias", first_bias, _HALF, (types * hidden,))
        _check("second_weight", second_weight, _HALF, (types, hidden))
        _check("second_bias", second_bias, _HALF, (types,))
        workspace = self._workspace(
            "fused_heads", patches=patches, features=features, hidden=hidden, types=types
        )
        probabilities = self._memory.result(owner, 0, (patches, types), _FLOAT)
        self._launch(
            "fused_heads",
            feature_map=feature_map.address,
            channels_last=channels_last,
            patches=patches,
            pixels=height * width,
            features=features,
            hidden=hidden,
            types=types,
            first_weight=first_weight.address,
            first_bias=first_bias.address,
            second_weight=second_weight.address,
            second_bias=second_bias.address,
            workspace=workspace.address,
            probabilities=probabilities.address,
        )
        return probabilities

    def _launch(self, op: str, **arguments: Any) -> None:
        with explain_cuda(f"{self._memory.place}: kernel {op}"):
            getattr(self._kernels, op)(**arguments, stream=self._memory.stream_handle)

    def _workspace(self, op: str, **sizes: int) -> CudaArray:
        size = getattr(self._kernels, f"{op}_workspace_bytes")(**sizes)
        return self._memory.result(f"{op} workspace", 0, (size,), _BYTE)

    def _constant(self, array: npt.NDArray[Any]) -> CudaArray:
        """Upload once: the anchors of a pack never change."""
        key = array.tobytes()
        if key not in self._constants:
            self._constants[key] = self._memory.upload(array)
        return self._constants[key]

    def _frame_table(self, frames: Sequence[CudaArray]) -> CudaArray:
        """Return what the kernels need of frames: address, size, and distance between rows."""
        table = np.zeros(len(frames), _FRAME)
        for index, frame in enumerate(frames):
            _check(f"frames[{index}]", frame, _BYTE, (None, None, 3))
            height, width, _ = frame.shape
            table[index] = (frame.address, height, width, 3 * width)
        return self._memory.upload(table)


def _is_half(dtype: np.dtype[Any]) -> bool:
    if dtype not in (_HALF, _FLOAT):
        raise ValueError(f"the networks' arrays must be fp16 or float32 (got {dtype})")
    return dtype == _HALF


def _check(
    name: str, array: CudaArray, dtype: npt.DTypeLike, shape: tuple[int | None, ...]
) -> None:
    """Raise ValueError for another type or shape. None in `shape` stands for any length."""
    fits = len(array.shape) == len(shape) and all(
        wanted is None or wanted == length
        for wanted, length in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must be {np.dtype(dtype)} [{wanted}] (got {array!r})")
