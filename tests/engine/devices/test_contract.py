"""What every device keeps to: the CPU, an NVIDIA GPU, a fake of one, and the stub of other tests.

A new kind of device is a line in DEVICES.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rbc_engine.devices.base import AnyDevice, DeviceChoice, DeviceKind, Ops
from rbc_engine.devices.cpu import ops as cpu_ops
from rbc_engine.devices.table import KINDS
from rbc_engine.errors import DeviceError
from rbc_engine.meter import Meter
from rbc_engine.types.frames import HOST, Place

from ..fakes.machine import FakeMachine
from ..fakes.scripted import SCRIPTED

DEVICES = [
    pytest.param(("cpu", "fp32"), id="cpu"),
    pytest.param(("cuda", "fp16"), id="fake-cuda"),
    pytest.param(("cuda", "fp16"), id="cuda", marks=pytest.mark.gpu),
    pytest.param(("scripted", "fp16"), id="stub"),
]
OPS = [name for name in vars(Ops) if not name.startswith("_")]

RNG = np.random.default_rng(5)
WEIGHT = RNG.normal(size=(6, 5)).astype(np.float16)


@dataclass
class Opened:
    """A device, its kind, and whether it computes: the stub's answers mean nothing."""

    kind: DeviceKind
    choice: DeviceChoice
    computes: bool

    @property
    def device(self) -> AnyDevice:
        return self.choice.device

    @property
    def network_type(self) -> type:
        """Of what networks take and give: float32 on the host, the graph's on a GPU."""
        return np.float32 if self.choice.place == HOST else np.float16


@pytest.fixture(params=DEVICES)
def opened(request, tmp_path, monkeypatch) -> Iterator[Opened]:
    monkeypatch.setenv("RBC_ENGINE_CACHE", str(tmp_path))
    name, precision = request.param
    kind = SCRIPTED if name == "scripted" else KINDS[name]
    if "fake" in request.node.callspec.id:
        FakeMachine().install(monkeypatch)
    if problems := kind.problems(0):
        pytest.skip("; ".join(problems))
    choice = kind.open(
        0, precision=precision, lanes=2, notes=["said before"], cache_name="contract", watch=None
    )
    with choice.device:
        choice.device.enter()
        yield Opened(kind, choice, computes=name != "scripted")


def product() -> bytes:
    """y = x @ WEIGHT, and z the positive part of it: float16, any number of rows."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", width])
        for name, width in (("x", 6), ("y", 5), ("z", 5))
    ]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(WEIGHT, "weight")]
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


# ---- the record ----


def test_the_record_tells_what_the_device_is(opened: Opened) -> None:
    choice, kind, device = opened.choice, opened.kind, opened.device
    assert choice.kind is kind
    assert device.name.startswith(f"{kind.name}:")
    assert device.backend
    assert device.precision in kind.precisions(0)
    assert 0 in kind.found()
    assert choice.place == (Place(kind.name, 0) if kind.numbered else HOST)
    sizes = (choice.lanes, choice.threads, choice.lane_frames, choice.batch_frames)
    assert min(*sizes, *choice.batch_patches) >= 1
    assert choice.lanes == 2
    assert all(isinstance(line, str) for line in (*choice.notes, *kind.needs(), *kind.lacks(0)))
    assert (kind.dlpack_type is None) == (kind.adopt is None)
    free = device.free_bytes()
    assert free is None or free > 0


def test_what_was_said_before_comes_first(opened: Opened) -> None:
    assert opened.choice.notes[0] == "said before"


# ---- memory ----


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int32, np.bool_])
@pytest.mark.parametrize("shape", [(3, 4), (1,), (0, 5), (2, 3, 4)])
def test_what_goes_up_comes_down(opened: Opened, dtype, shape) -> None:
    array = RNG.integers(0, 2, shape).astype(dtype)
    there = opened.device.upload(array)
    assert (tuple(there.shape), there.dtype, len(there)) == (shape, np.dtype(dtype), shape[0])
    (back,) = opened.device.download(there)
    assert (type(back), back.dtype) == (np.ndarray, np.dtype(dtype))
    np.testing.assert_array_equal(back, array)


def test_what_is_there_already_is_not_copied(opened: Opened) -> None:
    there = opened.device.upload(np.arange(6, dtype=np.float32))
    assert opened.device.upload(there) is there


def test_pixels_in_the_memory_of_another_device_are_refused(opened: Opened) -> None:
    class Elsewhere:
        place = Place("elsewhere", 7)
        shape, dtype = (4, 5, 3), np.dtype(np.uint8)

        def __dlpack__(self, **_):
            raise AssertionError("it was read")

    with pytest.raises(ValueError, match="elsewhere:7"):
        opened.device.upload(Elsewhere())


def test_rows_are_cut_copied_and_cleared(opened: Opened) -> None:
    device = opened.device
    array = device.empty((5, 2), np.float32)
    assert (tuple(array.shape), array.dtype, len(array)) == ((5, 2), np.float32, 5)
    array[:3] = device.upload(np.arange(6, dtype=np.float32).reshape(3, 2))
    array[3:] = 0
    part = array[1:4]
    whole, rows = device.download(array, part)
    np.testing.assert_array_equal(whole, [[0, 1], [2, 3], [4, 5], [0, 0], [0, 0]])
    np.testing.assert_array_equal(rows, whole[1:4])


def test_several_downloads_at_once_keep_their_order(opened: Opened) -> None:
    arrays = [np.full((index + 1, 2), index, np.int32) for index in range(4)]
    got = opened.device.download(*map(opened.device.upload, arrays))
    for one, expected in zip(got, arrays, strict=True):
        np.testing.assert_array_equal(one, expected)
    assert opened.device.download() == ()


# ---- networks ----


def test_a_network_gives_the_named_outputs(opened: Opened) -> None:
    device, meter = opened.device, Meter()
    network = device.load(product(), outputs=["y"], shapes={"x": (3, 6)}, meter=meter)
    x = RNG.normal(size=(3, 6)).astype(opened.network_type)
    outputs = network({"x": device.upload(x)})
    assert outputs.keys() == {"y"}
    (y,) = device.download(outputs["y"])
    if opened.computes:
        assert y.dtype == opened.network_type
        np.testing.assert_allclose(y, x.astype(np.float32) @ WEIGHT, atol=1e-2)
        assert meter.network_seconds > 0


def test_one_graph_serves_several_shapes(opened: Opened) -> None:
    device = opened.device
    for count in (1, 4, 1):
        network = device.load(product(), outputs=["z"], shapes={"x": (count, 6)})
        x = RNG.normal(size=(count, 6)).astype(opened.network_type)
        (z,) = device.download(network({"x": device.upload(x)})["z"])
        assert len(z) == count
        if opened.computes:
            np.testing.assert_allclose(z, (x.astype(np.float32) @ WEIGHT).clip(0), atol=1e-2)


@pytest.mark.parametrize(
    ("onnx", "outputs", "shapes"),
    [
        (b"nonsense", ["y"], {"x": (3, 6)}),
        (product(), ["q"], {"x": (3, 6)}),
        (product(), ["y"], {"q": (3, 6)}),
    ],
)
def test_what_does_not_compile_is_a_device_error(opened: Opened, onnx, outputs, shapes) -> None:
    if not opened.computes:
        return
    with pytest.raises(DeviceError):
        opened.device.load(onnx, outputs=outputs, shapes=shapes)


def test_wrong_inputs_are_the_callers_mistake(opened: Opened) -> None:
    if not opened.computes:
        return
    network = opened.device.load(product(), outputs=["y"], shapes={"x": (3, 6)})
    for name, shape, dtype in (
        ("q", (3, 6), opened.network_type),
        ("x", (4, 6), opened.network_type),
        ("x", (3, 6), np.int32),
    ):
        with pytest.raises(ValueError, match="input"):
            network({name: opened.device.empty(shape, dtype)})


# ---- ops ----


@pytest.mark.parametrize("op", OPS)
def test_an_op_takes_the_arguments_of_the_protocol(opened: Opened, op: str) -> None:
    wanted = list(inspect.signature(getattr(Ops, op)).parameters.values())[1:]
    here = inspect.signature(getattr(opened.device.ops, op))
    positional = [one for one in wanted if one.kind is one.POSITIONAL_OR_KEYWORD]
    here.bind(*positional, **{one.name: one for one in wanted if one.kind is one.KEYWORD_ONLY})
    if opened.computes:
        got = [(one.name, one.kind, one.default) for one in here.parameters.values()]
        assert got == [(one.name, one.kind, one.default) for one in wanted]


def calls() -> dict[str, tuple[list[Any], dict[str, Any]]]:
    """Make small arguments of every op. Those before ON_THE_HOST go to the device."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (40, 60, 3)).astype(np.uint8) for _ in range(2)]
    hw = np.array([[32, 48], [30, 40]], np.int32)
    boxes = np.tile(np.array([[2, 2, 20, 18], [10, 4, 40, 30]], np.float32), (2, 1, 1))
    counts = np.array([2, 1], np.int32)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "resize_letterbox": ([frames, hw], {"canvas_hw": (32, 64), "background_level": 240.0}),
        "generate_proposals": (
            [[normal(2, 1, 8, 16)], [normal(2, 4, 8, 16) / 4]],
            {
                "base_anchors": [np.array([[-8, -8, 8, 8]], np.float32)],
                "strides_px": [4],
                "image_hw": hw,
                "per_level": 20,
                "keep": 10,
                "nms_iou": 0.7,
            },
        ),
        "roi_align": (
            [[normal(2, 3, 8, 16), normal(2, 3, 4, 8)], boxes, counts],
            {
                "strides_px": [4, 8],
                "output_size": 3,
                "sampling_ratio": 2,
                "canonical_px": 16.0,
                "canonical_level": 2,
            },
        ),
        "postprocess_detections": (
            [normal(4, 2), normal(4, 8) / 4, boxes, counts],
            {
                "image_hw": hw,
                "frame_hw": np.array([[40, 60], [40, 60]], np.int32),
                "score_threshold": 0.1,
                "nms_iou": 0.5,
                "max_regions": 3,
            },
        ),
        "crop_resize": (
            [
                frames,
                np.array([[1, 2, 30, 31], [-4, 0, 20, 24]], np.float32),
                np.array([0, 1], np.int32),
            ],
            {"size_px": 16, "mean": (120.0, 110.0, 100.0), "std": (50.0, 60.0, 70.0)},
        ),
    }


ON_THE_HOST = {"resize_letterbox": 1, "crop_resize": 1}
"""From which argument on an op takes numpy arrays on any device."""


@pytest.mark.parametrize("op", OPS)
def test_an_op_answers_as_the_cpus(opened: Opened, op: str) -> None:
    if not opened.computes:
        return
    device = opened.device
    arguments, options = calls()[op]
    host_from = ON_THE_HOST.get(op, len(arguments))
    there = [
        [device.upload(one) for one in argument]
        if isinstance(argument, list)
        else device.upload(argument)
        for argument in arguments[:host_from]
    ]
    got = getattr(device.ops, op)(*there, *arguments[host_from:], **options)
    expected = getattr(cpu_ops, op)(*arguments, **options)
    got, expected = (x if isinstance(x, tuple) else (x,) for x in (got, expected))
    for one, wanted in zip(device.download(*got), expected, strict=True):
        assert one.shape == wanted.shape
        np.testing.assert_allclose(
            one.astype(np.float64), wanted.astype(np.float64), rtol=2e-3, atol=2e-3
        )


def test_an_op_names_the_argument_at_fault(opened: Opened) -> None:
    if not opened.computes:
        return
    (frames, windows, index), options = calls()["crop_resize"]
    there = [opened.device.upload(frame) for frame in frames]
    with pytest.raises(ValueError, match="size_px"):
        opened.device.ops.crop_resize(there, windows, index, **options | {"size_px": 0})
    with pytest.raises(ValueError, match="frame_index"):
        opened.device.ops.crop_resize(there, windows, index + 5, **options)


# ---- lanes, threads, closing ----


def test_lanes_work_side_by_side_and_end_by_themselves(opened: Opened) -> None:
    failures: list[BaseException] = []
    lanes = [opened.device.lane() for _ in range(2)]

    def work(lane: AnyDevice, seed: int) -> None:
        try:
            lane.enter()
            network = lane.load(product(), outputs=["y"], shapes={"x": (3, 6)})
            for _ in range(5):
                x = np.full((3, 6), seed, opened.network_type)
                (y,) = lane.download(network({"x": lane.upload(x)})["y"])
                if opened.computes:
                    np.testing.assert_allclose(y, x.astype(np.float32) @ WEIGHT, atol=1e-1)
            if lane is not opened.device:
                lane.close()
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(lane, seed)) for seed, lane in enumerate(lanes, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
    array = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(*opened.device.download(opened.device.upload(array)), array)


def test_closing_again_does_nothing(opened: Opened) -> None:
    with opened.device as same:
        assert same is opened.device
    opened.device.close()
