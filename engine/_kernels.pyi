from collections.abc import Sequence
from typing import Any

commit: str
has_cuda: bool
"""Whether the CUDA kernels are compiled in. They need no driver until one is launched."""

def resize_letterbox(*arguments: Any) -> None: ...
def crop_resize(*arguments: Any) -> None: ...
def generate_proposals(*arguments: Any) -> None: ...
def roi_align(*arguments: Any) -> None: ...
def postprocess_detections(*arguments: Any) -> None: ...
def measure_field(frame: Any) -> dict[str, Any]: ...

class cuda:  # noqa: N801
    """A submodule, there if `has_cuda`: the ops of rbc_engine.devices.cpu.ops as launches on a stream of the current context.

    Every integer without a unit is an address in device memory or, where the name says so, a size; `stream` is a
    CUstream. A launch neither allocates nor waits nor reads anything of the host's later, so a CUDA graph can record
    it, once it was launched without: the first launch loads the kernel. What is launched with zero images, frames,
    patches or slots to write does nothing.

    ValueError: a size over a launch's limit, an address that is null or not aligned to its type.
    RuntimeError: CUDA refused the launch.

    fp16: the network's arrays (objectness, deltas, features, pooled, class_logits, box_deltas, patches) hold fp16,
        else float32. Boxes, scores and windows are float32 always, counts and sizes int32.
    frames: [N] of {uint64 pixels, int32 height, int32 width, int64 row_bytes}, 24 bytes each: numpy's
        [("pixels", "<u8"), ("height", "<i4"), ("width", "<i4"), ("row_bytes", "<i8")]. `pixels` is the device address
        of uint8 RGB rows that begin row_bytes apart.
    workspace: so many bytes as `<op>_workspace_bytes` tells for the same sizes, aligned to 16, their content of no
        interest before and after; not shared by launches that may run at once.
    """

    @staticmethod
    def resize_letterbox(
        *,
        frames: int,  # [N], see above
        count: int,
        resized_hw: int,  # int32 [N, 2]
        canvas_hw: tuple[int, int],
        background_level: float,  # 0 leaves frames as they are
        workspace: int,
        canvases: int,  # uint8 [N, canvas height, canvas width, 3], written whole
        stream: int,
    ) -> None: ...
    @staticmethod
    def resize_letterbox_workspace_bytes(*, count: int) -> int: ...
    @staticmethod
    def generate_proposals(
        *,
        objectness: Sequence[int],  # for each level [N, A, h, w]; at most 6 levels
        deltas: Sequence[int],  # for each level [N, 4 A, h, w]
        base_anchors: Sequence[int],  # for each level float32 [A, 4]
        shapes: Sequence[tuple[int, int, int]],  # for each level A, h, w
        strides_px: Sequence[int],
        images: int,
        image_hw: int,  # int32 [N, 2]
        per_level: int,  # at most 4096
        keep: int,
        nms_iou: float,
        workspace: int,
        boxes: int,  # float32 [N, keep, 4], zero from counts[n] on
        counts: int,  # int32 [N]
        fp16: bool,
        stream: int,
    ) -> None: ...
    @staticmethod
    def generate_proposals_workspace_bytes(*, levels: int, images: int, per_level: int) -> int: ...
    @staticmethod
    def roi_align(
        *,
        features: Sequence[int],  # for each level [N, C, h, w], finest first; at most 6 levels
        level_hw: Sequence[tuple[int, int]],
        images: int,
        channels: int,
        boxes: int,  # float32 [N, K, 4]
        counts: int,  # int32 [N]
        slots: int,  # K
        output_size: int,  # S; times sampling_ratio at most 256
        sampling_ratio: int,
        finest_level: int,  # log2 of the finest level's stride
        canonical_level: int,
        canonical_px: float,
        pooled: int,  # [N * K, C, S, S]; zero in rows without a box
        fp16: bool,
        stream: int,
    ) -> None: ...
    @staticmethod
    def postprocess_detections(
        *,
        class_logits: int,  # [N * K, C]
        box_deltas: int,  # [N * K, 4 C]
        proposals: int,  # float32 [N, K, 4]
        proposal_counts: int,  # int32 [N]
        images: int,
        slots: int,  # K, at most 4096
        class_count: int,  # C, 2 to 16
        image_hw: int,  # int32 [N, 2]
        frame_hw: int,  # int32 [N, 2]
        score_threshold: float,
        nms_iou: float,
        max_regions: int,  # D
        workspace: int,
        boxes: int,  # float32 [N, D, 4]
        scores: int,  # float32 [N, D]
        classes: int,  # uint8 [N, D]
        counts: int,  # int32 [N]
        saturated: int,  # bool [N], a byte each
        fp16: bool,
        stream: int,
    ) -> None: ...
    @staticmethod
    def postprocess_detections_workspace_bytes(*, images: int, slots: int) -> int: ...
    @staticmethod
    def crop_resize(
        *,
        frames: int,  # [N], see above
        windows: int,  # float32 [R, 4]
        frame_index: int,  # int32 [R]
        count: int,  # R
        size_px: int,  # P
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        patches: int,  # [R, 3, P, P]
        fp16: bool,
        stream: int,
    ) -> None: ...
    @staticmethod
    def fused_heads(
        *,
        feature_map: int,  # fp16 [R, C, pixels], or [R, pixels, C] if channels_last
        channels_last: bool,
        patches: int,  # R
        pixels: int,
        features: int,  # C, a multiple of 64
        hidden: int,  # H, a multiple of 64
        types: int,  # T
        first_weight: int,  # fp16 [T * H, C], as the following; all aligned to 16
        first_bias: int,  # [T * H]
        second_weight: int,  # [T, H]
        second_bias: int,  # [T]
        workspace: int,
        probabilities: int,  # float32 [R, T]
        stream: int,
    ) -> None: ...
    @staticmethod
    def fused_heads_workspace_bytes(
        *, patches: int, features: int, hidden: int, types: int
    ) -> int: ...
