"""Check that the networks of a pack are what its manifest says, fit one another, and stay in bounds.

Nothing is compiled for it: the shapes of every tensor are followed from the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from rbc_engine.errors import PackError
from rbc_engine.packs.graphs.onnx_file import read_graph
from rbc_engine.packs.graphs.onnx_given import Shape
from rbc_engine.packs.graphs.onnx_shapes import Work, follow_shapes
from rbc_engine.packs.manifest import Manifest

__all__ = ["check_networks"]

_UINT8, _FLOATS = 2, (1, 10)
# Of one field at the pack's own scale, or one patch. The largest networks that were ever trained for a pack
# take less than a twentieth.
_MOST_BYTES = 8 << 30
_MOST_PATCH_BYTES = 1 << 30
_MOST_MULTIPLICATIONS = 10**13
_FIELD_RATIO = 4 / 3


def check_networks(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Check the three networks of a pack. files: their ONNX, by name.

    Raises PackError for anything but a plain graph of operators that packs have, for one that would
    take too much memory or time, and for shapes that are not those of the manifest.
    """
    detector, classifier = manifest.detector, manifest.classifier
    coarsest = detector.strides_px[-1]
    short = -(-detector.short_side_px // coarsest) * coarsest
    long = -(-int(detector.short_side_px * _FIELD_RATIO) // coarsest) * coarsest
    anchors = len(detector.anchor_sizes_px[0]) * len(detector.anchor_aspect_ratios)
    for height, width in ((coarsest, 2 * coarsest), (short, long)):
        wanted: dict[str, Shape] = {}
        for level, stride in enumerate(detector.strides_px):
            hw = (height // stride, width // stride)
            if level < detector.roi_levels:
                wanted[f"features_{level}"] = (1, detector.feature_channels, *hw)
            wanted[f"objectness_{level}"] = (1, anchors, *hw)
            wanted[f"deltas_{level}"] = (1, 4 * anchors, *hw)
        _check(files, "detector.onnx", "canvas", (1, height, width, 3), wanted, kinds=(_UINT8,))
    classes = len(detector.kinds) + 1
    rows, size = detector.proposals, detector.roi_size
    _check(
        files,
        "box_head.onnx",
        "roi_features",
        (rows, detector.feature_channels, size, size),
        {"class_logits": (rows, classes), "box_deltas": (rows, 4 * classes)},
    )
    for patches in (1, 2):
        work = _check(
            files,
            "classifier.onnx",
            "patches",
            (patches, 3, classifier.patch_px, classifier.patch_px),
            {"probabilities": (patches, len(manifest.types))},
            most_bytes=_MOST_PATCH_BYTES,
        )
        maps = work.shapes.get("feature_map", ())
        if len(maps) != 4 or maps[0] != patches:
            raise PackError(
                f"classifier.onnx must have an output feature_map of 4 axes (got {list(maps)}); "
                "rebuild the pack"
            )


def _check(
    files: Mapping[str, bytes],
    name: str,
    input_name: str,
    shape: Shape,
    wanted: Mapping[str, Shape],
    *,
    kinds: tuple[int, ...] = _FLOATS,
    most_bytes: int = _MOST_BYTES,
) -> Work:
    try:
        graph = read_graph(files[name])
        work = follow_shapes(graph, {input_name: shape})
    except (ValueError, OverflowError) as error:
        raise PackError(
            f"{name} is damaged or unsafe: {error}; reinstall the pack, or export it again"
        ) from error
    if graph.inputs[input_name] not in kinds:
        raise PackError(
            f"the input {input_name} of {name} has element type {graph.inputs[input_name]}, but must have "
            f"{' or '.join(map(str, kinds))}; export the pack again"
        )
    for output, expected in wanted.items():
        got = work.shapes.get(output)
        if got != expected:
            raise PackError(
                f"the networks of the pack do not fit together: {output} of {name} must have shape "
                f"{list(expected)} for {input_name} {list(shape)} (got "
                f"{'none' if got is None else list(got)}); rebuild the pack"
            )
    if work.bytes > most_bytes or work.multiplications > _MOST_MULTIPLICATIONS:
        raise PackError(
            f"{name} would take {work.bytes / 2**30:.1f} GiB and {work.multiplications:.2g} "
            f"multiplications for {input_name} {list(shape)}, more than {most_bytes / 2**30:.0f} GiB "
            f"or {_MOST_MULTIPLICATIONS:.0g}; use a smaller network"
        )
    return work
