"""The CUDA device's code, on a fake GPU that does nothing before it is waited for (see fakes/)."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rbc_engine.devices.cuda.device import CudaDevice, open_gpu
from rbc_engine.errors import DeviceError, DeviceMemoryError, UsageError
from rbc_engine.meter import Meter
from rbc_engine.types.frames import Place

from ..fakes.machine import FakeMachine

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(6, 5)).astype(np.float16)


def product() -> bytes:
    """y = x @ WEIGHT, float16, dynamic in the batch."""
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
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def device(machine: FakeMachine, tmp_path):
    gpu = open_gpu(0, libraries=machine.libraries, cache_root=tmp_path)
    with gpu.lane() as device:
        yield device


def half(count: int, *, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float16)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int32, np.bool_])
@pytest.mark.parametrize("shape", [(3, 4), (1,), (0, 5), (2, 3, 4)])
def test_what_goes_up_comes_down(device: CudaDevice, dtype, shape) -> None:
    array = RNG.integers(0, 2, shape).astype(dtype)
    there = device.upload(array)
    assert (there.shape, there.dtype, len(there)) == (shape, np.dtype(dtype), shape[0])
    (back,) = device.download(there)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


def test_a_host_array_may_be_changed_right_after_its_upload(device: CudaDevice) -> None:
    array = np.arange(10)
    there = device.upload(array)
    array[:] = 0
    np.testing.assert_array_equal(device.download(there)[0], np.arange(10))


def test_rows_are_copied_and_cleared_in_order(device: CudaDevice) -> None:
    array = device.empty((5, 2), np.float32)
    array[:3] = device.upload(np.arange(6, dtype=np.float32).reshape(3, 2))
    array[3:] = 0
    part = array[1:4]
    array[:1] = 0
    whole, rows = device.download(array, part)
    np.testing.assert_array_equal(whole, [[0, 0], [2, 3], [4, 5], [0, 0], [0, 0]])
    np.testing.assert_array_equal(rows, [[2, 3], [4, 5], [0, 0]])


def test_wrong_copies_are_refused(device: CudaDevice) -> None:
    array = device.empty((5, 2), np.float32)
    with pytest.raises(ValueError, match="shapes and types must agree"):
        array[:2] = device.empty((3, 2), np.float32)
    with pytest.raises(ValueError, match="shapes and types must agree"):
        array[:2] = device.empty((2, 2), np.float16)
    with pytest.raises(ValueError, match="or 0"):
        array[:2] = 1
    with pytest.raises(ValueError, match="step 1"):
        array[::2]


def test_temporaries_live_until_their_work_is_done(device: CudaDevice, machine) -> None:
    """Freed memory is overwritten, so that a copy out of it would show."""
    sums = device.empty((64, 100), np.int64)
    for row in range(64):
        sums[row : row + 1] = device.upload(np.full((1, 100), row))
        gc.collect()
    (got,) = device.download(sums)
    np.testing.assert_array_equal(got, np.repeat(np.arange(64)[:, None], 100, axis=1))


def test_pinned_memory_is_used_again(device: CudaDevice, machine) -> None:
    for _ in range(20):
        arrays = [device.upload(np.zeros(1000, np.uint8)) for _ in range(3)]
        device.download(*arrays)
    pinned = [number for _, number, _ in machine.gpus.blocks.values()].count(None)
    assert pinned <= 6


def test_pixels_of_a_decoder_are_adopted_without_a_copy(device: CudaDevice, machine) -> None:
    class Pixels:
        place = Place("cuda", 0)
        shape, dtype, strides = (4, 5, 3), np.dtype(np.uint8), (15, 3, 1)
        ptr = machine.gpus.allocate(60, 0)

        def __dlpack__(self, *, stream):
            assert stream == device.memory.stream_handle
            return self

    pixels = Pixels()
    there = device.upload(pixels)
    assert (there.address, there.shape) == (pixels.ptr, (4, 5, 3))
    assert device.upload(there) is there
    pixels.place = Place("cuda", 1)
    with pytest.raises(ValueError, match="in that of cuda:1"):
        device.upload(pixels)


def test_a_network_gives_the_graphs_answer_in_its_own_types(device: CudaDevice) -> None:
    network = device.load(product(), outputs=["y", "z"], shapes={"x": (3, 6)})
    got = device.download(*network({"x": device.upload(half(3))}).values())
    expected = (half(3).astype(np.float32) @ WEIGHT.astype(np.float32)).astype(np.float16)
    for result, wanted in zip(got, (expected, expected.clip(0)), strict=True):
        assert result.dtype == np.float16
        np.testing.assert_allclose(result, wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("graphs", [True, False])
def test_graphs_change_nothing_but_who_launches(machine, tmp_path, graphs: bool) -> None:
    gpu = open_gpu(0, libraries=machine.libraries, cache_root=tmp_path, graphs=graphs)
    with gpu.lane() as device:
        network = device.load(product(), outputs=["y"], shapes={"x": (3, 6)})
        answers = [
            device.download(network({"x": device.upload(half(3, seed=s))})["y"])[0]
            for s in (1, 2, 3, 1)
        ]
    assert machine.gpus.graphs_launched == (3 if graphs else 0)
    np.testing.assert_array_equal(answers[0], answers[3])
    assert not np.array_equal(answers[0], answers[1])


def test_a_stable_input_is_read_in_place_and_captured_anew_when_it_moves(
    device: CudaDevice, machine
) -> None:
    network = device.load(product(), outputs=["y"], shapes={"x": (3, 6)})
    results = []
    for name in ("a", "a", "a", "b", "b", "b", "a"):
        x = device.memory.result(name, 0, (3, 6), np.float16)
        x[:] = device.upload(half(3, seed=ord(name)))
        results.append(device.download(network({"x": x})["y"])[0])
    for result in results[1:3] + results[6:]:
        np.testing.assert_array_equal(result, results[0])
    for result in results[4:6]:
        np.testing.assert_array_equal(result, results[3])
    assert machine.gpus.graphs_launched == 4


def test_without_a_graph_it_runs_all_the_same_and_says_so(machine, tmp_path) -> None:
    machine.gpus.fail_capture = True
    gpu = open_gpu(0, libraries=machine.libraries, cache_root=tmp_path)
    with gpu.lane() as device:
        network = device.load(product(), outputs=["y"], shapes={"x": (3, 6)})
        for _ in range(3):
            (got,) = device.download(network({"x": device.upload(half(3))})["y"])
    np.testing.assert_allclose(got, half(3).astype(np.float32) @ WEIGHT, atol=1e-2)
    assert len(gpu.notes) == 1
    assert "without a CUDA graph" in gpu.notes[0]


def test_lanes_share_the_engine_and_not_their_memory(device: CudaDevice, machine) -> None:
    def run(lane: CudaDevice, seed: int, failures: list) -> None:
        try:
            lane.enter()
            network = lane.load(product(), outputs=["y"], shapes={"x": (3, 6)})
            for _ in range(20):
                (got,) = lane.download(network({"x": lane.upload(half(3, seed=seed))})["y"])
                np.testing.assert_allclose(
                    got, half(3, seed=seed).astype(np.float32) @ WEIGHT, atol=1e-2
                )
            lane.close()
        except BaseException as error:
            failures.append(error)

    failures: list = []
    threads = [
        threading.Thread(target=run, args=(device.lane(), seed, failures)) for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert machine.trt.builds == 1


def test_the_meter_learns_how_long_networks_ran(device: CudaDevice) -> None:
    meter = Meter()
    network = device.load(product(), outputs=["y"], shapes={"x": (3, 6)}, meter=meter)
    network({"x": device.upload(half(3))})
    assert meter.network_seconds == 0
    device.download()
    assert meter.network_seconds == pytest.approx(1e-3)  # the fake clock: a millisecond an event


def test_closing_frees_everything(machine, tmp_path) -> None:
    gpu = open_gpu(0, libraries=machine.libraries, cache_root=tmp_path)
    before = machine.gpus.used[0]
    for _ in range(3):
        device = gpu.lane()
        network = device.load(product(), outputs=["y"], shapes={"x": (3, 6)})
        for _ in range(3):
            outputs = network({"x": device.upload(half(3))})
        device.close()
        device.close()
        del device, network, outputs
        gc.collect()
        for stream in machine.gpus.streams.values():
            stream.sync()
    assert machine.gpus.used[0] == before


def test_lack_of_memory_is_distinguished_from_other_failures(tmp_path) -> None:
    machine = FakeMachine(total_bytes=1 << 20)
    gpu = open_gpu(0, libraries=machine.libraries, cache_root=tmp_path)
    device = gpu.lane()
    with pytest.raises(DeviceMemoryError, match="cuda:0: 4 MiB for a lane: out of GPU memory"):
        device.empty((1 << 20,), np.float32)
    machine.trt.no_memory = True
    with pytest.raises(DeviceMemoryError, match=r"network x 3x6: no memory"):
        device.load(product(), outputs=["y"], shapes={"x": (3, 6)})
    machine.gpus.lost.add(0)
    with pytest.raises(DeviceError, match=r"ILLEGAL_ADDRESS.*check nvidia-smi") as caught:
        device.download(device.upload(np.zeros(3)))
    assert not isinstance(caught.value, DeviceMemoryError)


def test_a_refused_enqueue_names_the_network(device: CudaDevice, machine) -> None:
    network = device.load(product(), outputs=["y"], shapes={"x": (3, 6)})
    machine.trt.fail_enqueue.add("x")
    with pytest.raises(DeviceError, match="network x 3x6: TensorRT could not enqueue it"):
        network({"x": device.upload(half(3))})


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"x": (3, np.float32)}, r"input x must be float16 \[3, 6\] \(got CudaArray\(float32"),
        ({"x": (4, np.float16)}, r"got CudaArray\(float16 \[4, 6\]"),
        ({"q": (3, np.float16)}, r"inputs must be \['x'\] \(got \['q'\]\)"),
    ],
)
def test_wrong_inputs_are_refused(device: CudaDevice, inputs, says: str) -> None:
    network = device.load(product(), outputs=["y"], shapes={"x": (3, 6)})
    with pytest.raises(ValueError, match=says):
        network({name: device.empty((count, 6), dtype) for name, (count, dtype) in inputs.items()})


@pytest.mark.parametrize(
    ("outputs", "shapes", "says"),
    [
        (["q"], {"x": (3, 6)}, r"outputs \['y', 'z'\] \(got \['q'\]\)"),
        (["y"], {"q": (3, 6)}, r"inputs \['x'\] \(got \['q'\]\)"),
    ],
)
def test_what_a_graph_does_not_have_is_refused(
    device: CudaDevice, outputs, shapes, says: str
) -> None:
    with pytest.raises(DeviceError, match=says):
        device.load(product(), outputs=outputs, shapes=shapes)


def test_a_damaged_graph_is_refused_with_tensorrts_reason(device: CudaDevice) -> None:
    with pytest.raises(DeviceError, match=r"TensorRT cannot read a network.*no ONNX model"):
        device.load(b"nonsense", outputs=["y"], shapes={"x": (3, 6)})


def test_other_precisions_are_refused(machine, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"auto, fp8, int8, fp16 on a GPU \(got 'bf16'\)"):
        open_gpu(0, libraries=machine.libraries, cache_root=tmp_path, precision="bf16")
