"""Every network of the shipped pack, compiled by the engine's own code with TensorRT's builder.

TensorRT itself needs a GPU to build; tensorrt_rtx has the same parser, the same network and builder classes and the
same strong typing, and builds for a GPU that is not there.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rbc_engine.devices.cuda.plan_build import build_plan, make_log
from rbc_engine.errors import DeviceError
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.packs.networks import network_of
from rbc_engine.packs.pack import Pack

trt = pytest.importorskip("tensorrt_rtx")

ARCHITECTURES = ("SM80", "SM86", "SM89", "SM120")
# fp8 from Ada on.
KINDS = [
    *(
        (architecture, precision)
        for architecture in ARCHITECTURES
        for precision in ("fp16", "int8")
    ),
    ("SM89", "fp8"),
    ("SM120", "fp8"),
]


@pytest.fixture(scope="module")
def log():
    return make_log(trt)


class Watch:
    def __init__(self, *, stop: bool = False) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.stop = stop

    def line(self, text: str) -> None:
        raise AssertionError(text)

    def progress(self, phase: str, done: int, total: int) -> bool:
        self.steps.append((phase, done, total))
        return not self.stop


def build(log, onnx: bytes, architecture: str, **options) -> bytes:
    def configure(config) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, architecture), 0)

    # timing=None: tensorrt_rtx keeps no timing cache.
    return build_plan(trt, log, onnx, timing=None, configure=configure, **options)[0]


def backbone_outputs(settings: DetectorSettings) -> list[str]:
    levels = range(len(settings.strides_px))
    return [
        *(f"features_{level}" for level in range(settings.roi_levels)),
        *(f"objectness_{level}" for level in levels),
        *(f"deltas_{level}" for level in levels),
    ]


@pytest.mark.parametrize(("architecture", "precision"), KINDS)
@pytest.mark.parametrize("frames", [1, 8])
def test_detector_builds(log, pack: Pack, architecture: str, precision: str, frames: int) -> None:
    settings = pack.manifest.detector
    for frame_hw in ((480, 640), (1080, 1920)):
        canvas = fit_canvas(frame_hw, pixel_um=None, settings=settings).canvas_hw
        plan = build(
            log,
            network_of(pack, "detector.onnx", precision=precision),
            architecture,
            outputs=backbone_outputs(settings),
            shapes={"canvas": (frames, *canvas, 3)},
        )
        assert len(plan) > 1 << 20


@pytest.mark.parametrize(("architecture", "precision"), KINDS)
@pytest.mark.parametrize("frames", [1, 8])
def test_box_head_builds(log, pack: Pack, architecture: str, precision: str, frames: int) -> None:
    settings = pack.manifest.detector
    size = settings.roi_size
    rois = (frames * settings.proposals, settings.feature_channels, size, size)
    plan = build(
        log,
        network_of(pack, "box_head.onnx", precision=precision),
        architecture,
        outputs=["class_logits", "box_deltas"],
        shapes={"roi_features": rois},
    )
    assert len(plan) > 1 << 20


@pytest.mark.parametrize(("architecture", "precision"), KINDS)
@pytest.mark.parametrize("patches", [8, 128])
def test_trunk_builds_without_its_head(
    log, pack: Pack, architecture: str, precision: str, patches: int
) -> None:
    side = pack.manifest.classifier.patch_px
    onnx = network_of(pack, "classifier.onnx", precision=precision)
    watch = Watch()
    plan = build(
        log,
        onnx,
        architecture,
        outputs=["feature_map"],
        shapes={"patches": (patches, 3, side, side)},
        channels_last=["feature_map"],
        watch=watch,
    )
    # The heads are a third of the file, and not in the plan. Integers are half as long.
    heads = (20 << 20) if precision == "fp16" else (10 << 20)
    assert 20 << 20 < len(plan) < len(pack.read("classifier.onnx")) - heads
    if precision != "fp16":
        assert len(plan) < 34 << 20
    assert watch.steps
    assert all(0 < done <= total for _, done, total in watch.steps)


def small() -> bytes:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, ["n", 64]) for n in "xyz"]
    weight = numpy_helper.from_array(np.ones((64, 64), np.float16), "w")
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


def test_a_build_can_be_stopped(log) -> None:
    with pytest.raises(DeviceError, match="the compilation was stopped"):
        build(log, small(), "SM89", outputs=["z"], shapes={"x": (4, 64)}, watch=Watch(stop=True))


@pytest.mark.parametrize(
    ("onnx", "outputs", "shapes", "says"),
    [
        (b"nonsense", ["z"], {"x": (4, 64)}, "TensorRT cannot read a network"),
        (small(), ["q"], {"x": (4, 64)}, r"outputs \['y', 'z'\] \(got \['q'\]\)"),
        (small(), ["z"], {"q": (4, 64)}, r"inputs \['x'\] \(got \['q'\]\)"),
        (small(), ["z"], {"x": (4, 63)}, "TensorRT cannot compile a network of the pack: .*63"),
    ],
)
def test_what_cannot_be_built_is_said(log, onnx: bytes, outputs, shapes, says: str) -> None:
    with pytest.raises(DeviceError, match=says):
        build(log, onnx, "SM89", outputs=outputs, shapes=shapes)
