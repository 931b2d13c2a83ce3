"""Turn frames into boxes: Faster R-CNN, its two networks and the kernels between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from rbc_engine.devices.anchors import base_anchors
from rbc_engine.devices.base import Array, Device, Network
from rbc_engine.lanes.stages.finite import without_numbers
from rbc_engine.lanes.stages.patch_batches import split_batches
from rbc_engine.meter import Meter
from rbc_engine.packs.networks import network_of
from rbc_engine.packs.pack import Pack
from rbc_engine.types.arrays import Float32, UInt8
from rbc_engine.types.frames import CanvasFit, Frame

__all__ = ["Detect", "Detections"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Detections:
    """Hold the regions of one frame, surest first.

    boxes: float32 [R, 4], x0 y0 x1 y1 in frame pixels.
    scores: float32 [R], 0..1.
    classes: uint8 [R], which of the pack's kinds each is, from 0: the detector's class less the
    background.
    saturated: more regions were found than the fixed-size output holds.
    wrong: why nothing of the frame can be trusted, and nothing was found therefore; None if it can.
    """

    boxes: Float32
    scores: Float32
    classes: UInt8
    saturated: bool
    wrong: str | None = None


class Detect(Generic[Array]):
    """Run the detection stage of one lane.

    batch: how many frames of one canvas shape go through the networks at once; a single one goes
    alone.
    threads: CPU threads for each kernel.
    """

    def __init__(
        self, device: Device[Array], pack: Pack, *, batch: int, threads: int, meter: Meter
    ) -> None:
        self._device = device
        self._pack = pack
        self._sizes = sorted({1, batch})
        self._threads = threads
        self._meter = meter
        self._settings = pack.manifest.detector
        self._anchors = [
            base_anchors(sizes, self._settings.anchor_aspect_ratios)
            for sizes in self._settings.anchor_sizes_px
        ]
        self._backbones: dict[tuple[int, tuple[int, int]], Network[Array]] = {}
        self._box_heads: dict[int, Network[Array]] = {}

    def __call__(self, frames: Sequence[Frame], fits: Sequence[CanvasFit]) -> list[Detections]:
        """Detect in every frame. Frames of one canvas shape share batches."""
        found: dict[int, Detections] = {}
        by_canvas: dict[tuple[int, int], list[int]] = {}
        for index, fit in enumerate(fits):
            by_canvas.setdefault(fit.canvas_hw, []).append(index)
        for indices in by_canvas.values():
            begin = 0
            for size in split_batches(len(indices), self._sizes):
                chunk = indices[begin : begin + size]
                begin += size
                # The networks have fixed batch sizes: an incomplete batch is padded with its last
                # frame.
                filled = chunk + chunk[-1:] * (size - len(chunk))
                results = self._run([frames[i] for i in filled], [fits[i] for i in filled])
                found.update(zip(chunk, results, strict=False))
        return [found[index] for index in range(len(frames))]

    def prepare_box_head(self) -> None:
        """Compile network B; network A waits for the shape of the frames' canvas."""
        for size in self._sizes:
            self._box_head(size)

    def _backbone(self, count: int, canvas_hw: tuple[int, int]) -> Network[Array]:
        """Return network A for `count` frames of one canvas shape, compiled at its first use."""
        key = (count, canvas_hw)
        if key not in self._backbones:
            settings = self._settings
            levels = range(len(settings.strides_px))
            outputs = [f"features_{level}" for level in range(settings.roi_levels)]
            outputs += [f"objectness_{level}" for level in levels]
            outputs += [f"deltas_{level}" for level in levels]
            self._backbones[key] = self._device.load(
                network_of(self._pack, "detector.onnx", precision=self._device.precision),
                outputs=outputs,
                shapes={"canvas": (count, *canvas_hw, 3)},
                meter=self._meter,
            )
        return self._backbones[key]

    def _box_head(self, count: int) -> Network[Array]:
        """Return network B for the proposals of `count` frames, compiled at its first use."""
        if count not in self._box_heads:
            settings = self._settings
            size = settings.roi_size
            self._box_heads[count] = self._device.load(
                network_of(self._pack, "box_head.onnx", precision=self._device.precision),
                outputs=["class_logits", "box_deltas"],
                shapes={
                    "roi_features": (
                        count * settings.proposals,
                        settings.feature_channels,
                        size,
                        size,
                    )
                },
                meter=self._meter,
            )
        return self._box_heads[count]

    def _run(self, frames: Sequence[Frame], fits: Sequence[CanvasFit]) -> list[Detections]:
        settings, ops, threads = self._settings, self._device.ops, self._threads
        image_hw = np.array([fit.resized_hw for fit in fits], np.int32)
        frame_hw = np.array([(frame.height, frame.width) for frame in frames], np.int32)

        canvases = ops.resize_letterbox(
            [self._device.upload(frame.pixels) for frame in frames],
            image_hw,
            canvas_hw=fits[0].canvas_hw,
            background_level=settings.background_level,
            threads=threads,
        )
        maps = self._backbone(len(frames), fits[0].canvas_hw)({"canvas": canvases})
        levels = range(len(settings.strides_px))
        proposals, counts = ops.generate_proposals(
            [maps[f"objectness_{level}"] for level in levels],
            [maps[f"deltas_{level}"] for level in levels],
            base_anchors=self._anchors,
            strides_px=settings.strides_px,
            image_hw=image_hw,
            per_level=settings.proposals_per_level,
            keep=settings.proposals,
            nms_iou=settings.proposal_nms_iou,
            threads=threads,
        )
        roi_features = ops.roi_align(
            [maps[f"features_{level}"] for level in range(settings.roi_levels)],
            proposals,
            counts,
            strides_px=settings.strides_px[: settings.roi_levels],
            output_size=settings.roi_size,
            sampling_ratio=settings.roi_sampling_ratio,
            canonical_px=settings.roi_canonical_px,
            canonical_level=settings.roi_canonical_level,
            threads=threads,
        )
        heads = self._box_head(len(frames))({"roi_features": roi_features})
        # The ops drop candidates whose numbers are not finite: cells would be missing unnoticed.
        judged = {name: maps[name] for name in maps if not name.startswith("features_")} | heads
        boxes, scores, classes, kept, saturated, *numbers = self._device.download(
            *ops.postprocess_detections(
                heads["class_logits"],
                heads["box_deltas"],
                proposals,
                counts,
                image_hw=image_hw,
                frame_hw=frame_hw,
                score_threshold=settings.score_threshold,
                nms_iou=settings.nms_iou,
                max_regions=settings.max_regions,
                threads=threads,
            ),
            *judged.values(),
        )
        wrong = without_numbers(dict(zip(judged, numbers, strict=True)), frames=len(frames))
        kept = np.where([reason is None for reason in wrong], kept, 0)
        return [
            Detections(
                boxes=boxes[n, : kept[n]].copy(),
                scores=scores[n, : kept[n]].copy(),
                classes=classes[n, : kept[n]] - np.uint8(1),
                saturated=bool(saturated[n]),
                wrong=wrong[n],
            )
            for n in range(len(frames))
        ]
