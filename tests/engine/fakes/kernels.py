"""rbc_engine._kernels.cuda without a GPU: each launch is the CPU op on what lies at its addresses, when its turn comes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from rbc_engine.devices.cpu import ops

_FRAME = np.dtype([("pixels", "<u8"), ("height", "<i4"), ("width", "<i4"), ("row_bytes", "<i8")])
_WORKSPACE_BYTES = 4096


def make_kernels(gpus) -> SimpleNamespace:
    """The module, for launches on the streams of these GPUs."""

    def reader(stream):
        return lambda address, shape, dtype: gpus.view(address, shape, dtype, on=stream.number)

    def network(fp16):
        return np.float16 if fp16 else np.float32

    def frames_of(read, address, count):
        table = read(address, (count,), _FRAME)
        return [
            read(int(row["pixels"]), (int(row["height"]), int(row["width"]), 3), np.uint8)
            for row in table
        ]

    def resize_letterbox(
        *, frames, count, resized_hw, canvas_hw, background_level, workspace, canvases, stream
    ):
        stream = gpus.streams[stream]
        read = reader(stream)

        def work():
            read(canvases, (count, *canvas_hw, 3), np.uint8)[:] = ops.resize_letterbox(
                frames_of(read, frames, count),
                read(resized_hw, (count, 2), np.int32),
                canvas_hw=canvas_hw,
                background_level=background_level or None,
            )
            read(workspace, (_WORKSPACE_BYTES,), np.uint8)[:] = 4

        stream.put(work)

    def generate_proposals(
        *, objectness, deltas, base_anchors, shapes, strides_px, images, image_hw, per_level,
        keep, nms_iou, workspace, boxes, counts, fp16, stream,
    ):  # fmt: skip
        stream = gpus.streams[stream]
        read = reader(stream)

        def work():
            kind = network(fp16)
            read(workspace, (_WORKSPACE_BYTES,), np.uint8)[:] = 1
            levels = [
                (
                    read(logits, (images, a, h, w), kind).astype(np.float32),
                    read(moves, (images, 4 * a, h, w), kind).astype(np.float32),
                    read(base, (a, 4), np.float32),
                )
                for logits, moves, base, (a, h, w) in zip(
                    objectness, deltas, base_anchors, shapes, strict=True
                )
            ]
            found, number = ops.generate_proposals(
                [level[0] for level in levels],
                [level[1] for level in levels],
                base_anchors=[level[2] for level in levels],
                strides_px=strides_px,
                image_hw=read(image_hw, (images, 2), np.int32),
                per_level=per_level,
                keep=keep,
                nms_iou=nms_iou,
            )
            read(boxes, (images, keep, 4), np.float32)[:] = found
            read(counts, (images,), np.int32)[:] = number

        stream.put(work)

    def roi_align(
        *, features, level_hw, images, channels, boxes, counts, slots, output_size, sampling_ratio,
        finest_level, canonical_level, canonical_px, pooled, fp16, stream,
    ):  # fmt: skip
        stream = gpus.streams[stream]
        read = reader(stream)

        def work():
            kind = network(fp16)
            shape = (images * slots, channels, output_size, output_size)
            read(pooled, shape, kind)[:] = ops.roi_align(
                [
                    read(address, (images, channels, *hw), kind).astype(np.float32)
                    for address, hw in zip(features, level_hw, strict=True)
                ],
                read(boxes, (images, slots, 4), np.float32),
                read(counts, (images,), np.int32),
                strides_px=[1 << (finest_level + level) for level in range(len(features))],
                output_size=output_size,
                sampling_ratio=sampling_ratio,
                canonical_px=canonical_px,
                canonical_level=canonical_level,
            )

        stream.put(work)

    def postprocess_detections(
        *, class_logits, box_deltas, proposals, proposal_counts, images, slots, class_count, image_hw,
        frame_hw, score_threshold, nms_iou, max_regions, workspace, boxes, scores, classes, counts,
        saturated, fp16, stream,
    ):  # fmt: skip
        stream = gpus.streams[stream]
        read = reader(stream)

        def work():
            kind = network(fp16)
            read(workspace, (_WORKSPACE_BYTES,), np.uint8)[:] = 2
            results = ops.postprocess_detections(
                read(class_logits, (images * slots, class_count), kind).astype(np.float32),
                read(box_deltas, (images * slots, 4 * class_count), kind).astype(np.float32),
                read(proposals, (images, slots, 4), np.float32),
                read(proposal_counts, (images,), np.int32),
                image_hw=read(image_hw, (images, 2), np.int32),
                frame_hw=read(frame_hw, (images, 2), np.int32),
                score_threshold=score_threshold,
                nms_iou=nms_iou,
                max_regions=max_regions,
            )
            addresses = (boxes, scores, classes, counts, saturated)
            for address, result in zip(addresses, results, strict=True):
                read(address, result.shape, result.dtype)[:] = result

        stream.put(work)

    def crop_resize(
        *, frames, windows, frame_index, count, size_px, mean, std, patches, fp16, stream
    ):
        stream = gpus.streams[stream]
        read = reader(stream)

        def work():
            index = read(frame_index, (count,), np.int32)
            read(patches, (count, 3, size_px, size_px), network(fp16))[:] = ops.crop_resize(
                frames_of(read, frames, int(index.max()) + 1),
                read(windows, (count, 4), np.float32),
                index,
                size_px=size_px,
                mean=mean,
                std=std,
            )

        stream.put(work)

    def fused_heads(
        *, feature_map, channels_last, patches, pixels, features, hidden, types, first_weight,
        first_bias, second_weight, second_bias, workspace, probabilities, stream,
    ):  # fmt: skip
        stream = gpus.streams[stream]
        read = reader(stream)

        def work():
            read(workspace, (_WORKSPACE_BYTES,), np.uint8)[:] = 3
            shape = (patches, pixels, features) if channels_last else (patches, features, pixels)
            mean = read(feature_map, shape, np.float16).mean(
                axis=1 if channels_last else 2, dtype=np.float32
            )
            first = read(first_weight, (types * hidden, features), np.float16).astype(np.float32)
            bias = read(first_bias, (types * hidden,), np.float16)
            inner = np.maximum(mean.astype(np.float16).astype(np.float32) @ first.T + bias, 0)
            second = read(second_weight, (types, hidden), np.float16)
            logits = (inner.reshape(patches, types, hidden) * second).sum(axis=2)
            logits += read(second_bias, (types,), np.float16)
            read(probabilities, (patches, types), np.float32)[:] = 1 / (1 + np.exp(-logits))

        stream.put(work)

    def workspace_bytes(**sizes):
        assert all(size > 0 for size in sizes.values())
        return _WORKSPACE_BYTES

    return SimpleNamespace(
        resize_letterbox=resize_letterbox,
        generate_proposals=generate_proposals,
        resize_letterbox_workspace_bytes=workspace_bytes,
        generate_proposals_workspace_bytes=workspace_bytes,
        roi_align=roi_align,
        postprocess_detections=postprocess_detections,
        postprocess_detections_workspace_bytes=workspace_bytes,
        crop_resize=crop_resize,
        fused_heads=fused_heads,
        fused_heads_workspace_bytes=workspace_bytes,
    )
