"""_kernels.cuda as far as it goes without a GPU: its names and sizes, and what it refuses before it launches."""

import ast
import re
from pathlib import Path

import pytest

from rbc_engine import _kernels

pytestmark = pytest.mark.skipif(not _kernels.has_cuda, reason="CUDA kernels not compiled in")

ADDRESS = 4096  # of nothing: no call here gets as far as to read it


def at(*names: str) -> dict:
    return dict.fromkeys(names, ADDRESS)


# What a launch would take, but for zero of whatever it makes.
ARGUMENTS = {
    "resize_letterbox": at("frames", "resized_hw", "workspace", "canvases")
    | {"count": 0, "canvas_hw": (32, 48), "background_level": 170.0, "stream": 0},
    "crop_resize": at("frames", "windows", "frame_index", "patches")
    | {"count": 0, "size_px": 64, "mean": (1, 2, 3), "std": (4, 5, 6), "fp16": True, "stream": 0},
    "generate_proposals": at("image_hw", "workspace", "boxes", "counts")
    | {"objectness": [ADDRESS] * 2, "deltas": [ADDRESS] * 2, "base_anchors": [ADDRESS] * 2}
    | {"shapes": [(3, 8, 8), (3, 4, 4)], "strides_px": [4, 8], "images": 0, "per_level": 100}
    | {"keep": 50, "nms_iou": 0.7, "fp16": True, "stream": 0},
    "roi_align": at("boxes", "counts", "pooled")
    | {"features": [ADDRESS], "level_hw": [(8, 8)], "images": 0, "channels": 16, "slots": 10}
    | {"output_size": 7, "sampling_ratio": 2, "finest_level": 2, "canonical_level": 4}
    | {"canonical_px": 224.0, "fp16": True, "stream": 0},
    "postprocess_detections": at("class_logits", "box_deltas", "proposals", "proposal_counts")
    | at("image_hw", "frame_hw", "workspace", "boxes", "scores", "classes", "counts", "saturated")
    | {
        "images": 0,
        "slots": 10,
        "class_count": 4,
        "score_threshold": 0.5,
        "nms_iou": 0.5,
        "max_regions": 5,
    }
    | {"fp16": True, "stream": 0},
    "fused_heads": at("feature_map", "first_weight", "first_bias", "second_weight", "second_bias")
    | at("workspace", "probabilities")
    | {"channels_last": False, "patches": 0, "pixels": 4, "features": 128, "hidden": 64}
    | {"types": 6, "stream": 0},
}


@pytest.mark.parametrize("op", ARGUMENTS)
def test_nothing_to_do_needs_no_gpu(op: str) -> None:
    getattr(_kernels.cuda, op)(**ARGUMENTS[op])


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        ("resize_letterbox", {"count": 65536}, "at most 65535 frames .got 65536"),
        ("resize_letterbox", {"count": -1}, "count must be at least 0"),
        ("resize_letterbox", {"count": 1, "canvas_hw": (0, 5)}, "canvas_hw must be at least 1"),
        ("crop_resize", {"count": 1 << 40}, "at most 2147483647"),
        ("crop_resize", {"count": 1, "frames": 0}, "frames must be an address .*multiple of 8"),
        ("crop_resize", {"count": 1, "patches": 4097}, "patches must be an address"),
        ("generate_proposals", {"images": 1, "per_level": 4097}, "per_level must be at most 4096"),
        ("generate_proposals", {"images": 1, "deltas": [ADDRESS]}, "deltas must have one entry"),
        ("generate_proposals", {"images": 1, "workspace": 4104}, "workspace .*multiple of 16"),
        (
            "generate_proposals",
            {"images": 1, "shapes": [(1, 1, 1), (8, 8192, 8192)]},
            "at most 536870911 anchors",
        ),
        (
            "generate_proposals",
            {
                "images": 1,
                **{name: [ADDRESS] * 7 for name in ("objectness", "deltas", "base_anchors")},
                **{"shapes": [(1, 1, 1)] * 7, "strides_px": [4] * 7},
            },
            "at most 6 levels",
        ),
        ("roi_align", {"images": 1, "output_size": 129}, "at most 256 .got 258"),
        ("roi_align", {"images": 1, "features": []}, "level_hw must have one entry"),
        ("postprocess_detections", {"images": 1, "slots": 4097}, "slots must be at most 4096"),
        ("postprocess_detections", {"images": 1, "class_count": 1}, "must lie in 2..16 .got 1"),
        ("postprocess_detections", {"images": 1, "class_count": 17}, "must lie in 2..16 .got 17"),
        ("fused_heads", {"patches": 1, "features": 100}, "features must be a multiple of 64"),
        ("fused_heads", {"patches": 1, "hidden": 32}, "hidden must be a multiple of 64"),
        ("fused_heads", {"patches": 1, "types": 5000}, "types must be at most 4096"),
    ],
)
def test_refuses(op: str, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(_kernels.cuda, op)(**(ARGUMENTS[op] | changes))


def test_workspaces() -> None:
    cuda = _kernels.cuda
    # Three levels and a gain.
    assert cuda.resize_letterbox_workspace_bytes(count=3) == 3 * 8
    # Boxes and logits of every list, and how many they are.
    proposals = cuda.generate_proposals_workspace_bytes(levels=4, images=3, per_level=100)
    assert proposals == 12 * (100 * 20 + 4)
    assert cuda.postprocess_detections_workspace_bytes(images=3, slots=7) == 21 * 20
    # fp16 features of two tiles of patches, a float for each patch and slice of 64 units, a counter for each tile.
    heads = cuda.fused_heads_workspace_bytes(patches=65, features=128, hidden=192, types=6)
    assert heads == 128 * 128 * 2 + 6 * 3 * 65 * 4 + 2 * 6 * 4


def test_stub_tells_the_names(repository: Path) -> None:
    stub = ast.parse((repository / "engine" / "_kernels.pyi").read_text())
    (typed,) = (node for node in stub.body if isinstance(node, ast.ClassDef))
    expected = {
        node.name: [argument.arg for argument in node.args.kwonlyargs]
        for node in typed.body
        if isinstance(node, ast.FunctionDef)
    }
    got = {}
    for name in dir(_kernels.cuda):
        if not name.startswith("_"):
            signature = getattr(_kernels.cuda, name).__doc__.split("->")[0]
            assert signature.startswith(f"{name}(*, ")
            got[name] = re.findall(r"(\w+): ", signature)
    assert got == expected
