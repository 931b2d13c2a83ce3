"""The CPU device, on small graphs whose answers numpy knows."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.errors import DeviceError, UsageError

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(6, 5)).astype(np.float16)
KERNEL = RNG.normal(size=(4, 3, 1, 1)).astype(np.float16)


def graph(nodes: list[onnx.NodeProto], inputs, outputs, **weights: np.ndarray) -> bytes:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            tensors,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def product() -> bytes:
    """product = x @ WEIGHT and relu of it, float16, dynamic in the batch."""
    return graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Relu", ["product"], ["relu"]),
        ],
        [("x", TensorProto.FLOAT16, ["n", 6])],
        [("product", TensorProto.FLOAT16, ["n", 5]), ("relu", TensorProto.FLOAT16, ["n", 5])],
        weight=WEIGHT,
    )


def pixels() -> bytes:
    """A 1x1 convolution over uint8 NHWC pixels."""
    return graph(
        [
            helper.make_node("Transpose", ["canvas"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT16),
            helper.make_node("Conv", ["levels", "kernel"], ["map"]),
        ],
        [("canvas", TensorProto.UINT8, ["n", "h", "w", 3])],
        [("map", TensorProto.FLOAT16, ["n", 4, "h", "w"])],
        kernel=KERNEL,
    )


def slow(size: int = 768, layers: int = 40) -> bytes:
    """A chain of products long enough to see what else happens meanwhile."""
    names = ["x", *(f"x{layer}" for layer in range(layers))]
    return graph(
        [
            helper.make_node("MatMul", [before, "weight"], [after])
            for before, after in pairwise(names)
        ],
        [("x", TensorProto.FLOAT, [size, size])],
        [(names[-1], TensorProto.FLOAT, [size, size])],
        weight=(RNG.normal(size=(size, size)) / size**0.5).astype(np.float32),
    )


@pytest.fixture
def device():
    with HostDevice(precision="fp32", lanes=2, threads=2) as device:
        yield device


def rows(count: int = 3, *, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 4])
def test_float16_graph_takes_and_gives_float32(device: HostDevice, count: int):
    network = device.load(product(), outputs=["product", "relu"], shapes={"x": (count, 6)})
    got = network({"x": rows(count)})
    expected = rows(count) @ WEIGHT.astype(np.float32)
    assert got.keys() == {"product", "relu"}
    assert {array.dtype for array in got.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(got["product"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got["relu"], expected.clip(0), rtol=1e-5, atol=1e-5)


def test_uint8_input_stays_uint8(device: HostDevice):
    canvas = RNG.integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    network = device.load(pixels(), outputs=["map"], shapes={"canvas": canvas.shape})
    expected = np.einsum("nhwc,kc->nkhw", canvas, KERNEL[:, :, 0, 0].astype(np.float32))
    np.testing.assert_allclose(network({"canvas": canvas})["map"], expected, rtol=1e-4, atol=1e-3)


def test_only_the_named_outputs_are_computed(device: HostDevice):
    both = device.load(product(), outputs=["product", "relu"], shapes={"x": (2, 6)})
    one = device.load(product(), outputs=["product"], shapes={"x": (2, 6)})
    assert one({"x": rows(2)}).keys() == {"product"}
    assert len(one.layer_precisions()) < len(both.layer_precisions())


def test_output_names_survive_steps_that_change_nothing(device: HostDevice):
    """OpenVINO drops an Identity and joins the names of its two sides."""
    data = graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["inner"]),
            helper.make_node("Identity", ["inner"], ["a_name"]),
        ],
        [("x", TensorProto.FLOAT16, ["n", 6])],
        [("a_name", TensorProto.FLOAT16, ["n", 5])],
        weight=WEIGHT,
    )
    network = device.load(data, outputs=["a_name"], shapes={"x": (2, 6)})
    assert network({"x": rows(2)}).keys() == {"a_name"}


def test_inputs_are_neither_changed_nor_needed_writable(device: HostDevice):
    network = device.load(product(), outputs=["relu"], shapes={"x": (3, 6)})
    x = rows()
    x.flags.writeable = False
    network({"x": x})
    np.testing.assert_array_equal(x, rows())


def test_outputs_are_the_same_memory_at_every_call(device: HostDevice):
    network = device.load(product(), outputs=["product"], shapes={"x": (3, 6)})
    first = network({"x": rows(seed=1)})["product"]
    second = network({"x": rows(seed=2)})["product"]
    assert np.shares_memory(first, second)
    other = device.load(product(), outputs=["product"], shapes={"x": (3, 6)})
    assert not np.shares_memory(first, other({"x": rows()})["product"])


def test_networks_of_one_graph_run_side_by_side(device: HostDevice):
    expected = [rows(seed=seed) @ WEIGHT.astype(np.float32) for seed in range(50)]

    def run(_: int) -> None:
        network = device.load(product(), outputs=["product"], shapes={"x": (3, 6)})
        for seed in range(50):
            got = network({"x": rows(seed=seed)})["product"]
            np.testing.assert_allclose(got, expected[seed], rtol=1e-5, atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))


def test_python_goes_on_while_a_network_runs(device: HostDevice):
    network = device.load(slow(), outputs=["x39"], shapes={"x": (768, 768)})
    x = np.ones((768, 768), np.float32)
    finished = threading.Event()

    def run() -> None:
        network({"x": x})
        finished.set()

    # A busy machine may keep this thread waiting now and then; a network that holds the GIL always
    # does.
    for _ in range(20):
        finished.clear()
        worker = threading.Thread(target=run)
        longest, started = 0.0, time.perf_counter()
        worker.start()
        last = started
        while not finished.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        worker.join()
        if longest < 0.5 * (last - started):
            return
    raise AssertionError("the GIL was held for most of every inference")


def test_a_graph_is_compiled_once(device: HostDevice):
    def seconds() -> float:
        """Of the processor, whatever else it does meanwhile."""
        started = time.process_time()
        device.load(data, outputs=["x199"], shapes={"x": (768, 768)})
        return time.process_time() - started

    data = slow(layers=200)
    first = seconds()
    assert min(seconds() for _ in range(3)) < first / 3


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"x": rows().astype(np.float64)}, "must be float32"),
        ({"x": rows(4)}, r"\[3, 6\] \(got float32 \[4, 6\]\)"),
        ({"x": np.asfortranarray(rows())}, "C-contiguous"),
        ({"y": rows()}, r"inputs must be \['x'\]"),
        ({}, r"inputs must be \['x'\]"),
    ],
)
def test_wrong_inputs_are_refused(device: HostDevice, inputs, says: str):
    network = device.load(product(), outputs=["product"], shapes={"x": (3, 6)})
    with pytest.raises(ValueError, match=says):
        network(inputs)


@pytest.mark.parametrize("data", [b"", b"not a network", product()[:60], b"\0" * 1000])
def test_damaged_graphs_are_refused(device: HostDevice, data: bytes):
    with pytest.raises(DeviceError, match="cannot compile"):
        device.load(data, outputs=["product"], shapes={"x": (3, 6)})


def test_tensors_in_other_files_are_refused(device: HostDevice, tmp_path, monkeypatch):
    """OpenVINO would read any file that the graph names, from the working folder."""
    model = onnx.load_from_string(product())
    onnx.save(
        model,
        tmp_path / "graph.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (tmp_path / "weights.bin").stat().st_size == WEIGHT.nbytes
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceError, match="other files"):
        device.load(
            (tmp_path / "graph.onnx").read_bytes(), outputs=["product"], shapes={"x": (3, 6)}
        )


@pytest.mark.parametrize(
    ("outputs", "shapes", "says"),
    [
        (["logits"], {"x": (3, 6)}, r"outputs \['product', 'relu'\] \(got \['logits'\]\)"),
        ([], {"x": (3, 6)}, "outputs"),
        (["product"], {"patches": (3, 6)}, r"inputs \['x'\] \(got \['patches'\]\)"),
        (["product"], {}, "inputs"),
        (["product"], {"x": (3, 7)}, "cannot compile"),
    ],
)
def test_what_a_graph_does_not_have_is_refused(device: HostDevice, outputs, shapes, says: str):
    with pytest.raises(DeviceError, match=says):
        device.load(product(), outputs=outputs, shapes=shapes)


def test_layers_compute_in_the_precision_that_the_device_states():
    with HostDevice(precision="auto") as device:
        bf16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        assert device.precision == ("bf16" if bf16 else "fp32")
        assert bool(device.notes) == (not bf16), "not the faster precision: it must say why"
        network = device.load(pixels(), outputs=["map"], shapes={"canvas": (1, 8, 8, 3)})
        computed = dict(network.layer_precisions())
        assert computed["Convolution"] == {"fp32": "f32", "bf16": "bf16"}[device.precision]


def test_describes_itself(device: HostDevice):
    assert device.name.startswith("cpu: ")
    assert len(device.name) > len("cpu: ")
    assert device.backend == f"OpenVINO {ov.__version__.split('-')[0]}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "fp16"}, "auto, .*fp32 on this CPU .*'fp16'"),
        ({"precision": "float32"}, "'float32'"),
        ({"lanes": 0}, "lanes must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, says: str):
    with pytest.raises(UsageError, match=says):
        HostDevice(**options)


def test_uses_the_cores_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        device = HostDevice(precision="fp32")
        network = device.load(product(), outputs=["product"], shapes={"x": (3, 6)})
    finally:
        os.sched_setaffinity(0, allowed)
    assert network.threads == 1


def test_networks_outlive_their_device(device: HostDevice):
    network = device.load(product(), outputs=["product"], shapes={"x": (3, 6)})
    device.close()
    expected = rows() @ WEIGHT.astype(np.float32)
    np.testing.assert_allclose(network({"x": rows()})["product"], expected, rtol=1e-5, atol=1e-5)


def test_memory_is_numpys(device: HostDevice):
    array = rows()
    assert device.upload(array) is array
    assert device.download(array)[0] is array
    empty = device.empty((2, 3), np.uint8)
    assert empty.shape == (2, 3)
    assert empty.dtype == np.uint8
