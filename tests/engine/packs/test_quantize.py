"""Q/DQ nodes: what a quantised network computes, beside the same rounding done by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from rbc_engine.errors import PackError
from rbc_engine.packs.pack import Pack
from rbc_engine.packs.quantize import find_layers, observed_tensors, quantize

NETWORKS = ("detector.onnx", "box_head.onnx", "classifier.onnx")


def toy(seed: int = 0) -> tuple[bytes, dict[str, np.ndarray]]:
    """Two convolutions with a max pool and a residual between them, typed float16 as a pack's networks."""
    rng = np.random.default_rng(seed)
    weights = {
        "w0": (rng.standard_normal((8, 3, 3, 3)) * rng.uniform(0.1, 3, (8, 1, 1, 1))).astype("f2"),
        "b0": rng.standard_normal(8).astype("f2"),
        "w1": (rng.standard_normal((8, 8, 3, 3)) * 0.2).astype("f2"),
        "b1": rng.standard_normal(8).astype("f2"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("MaxPool", ["r0"], ["p0"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p0", "w1", "b1"], ["c1"], name="second", pads=[1] * 4),
        helper.make_node("Add", ["c1", "p0"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["n", 8, 4, 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString(), weights


# So small that much is cut off: a network that were not quantised would answer quite otherwise.
RANGES = {"x": 1.0, "p0": 3.0, "r0": 4.0}


def rounded(values: torch.Tensor, largest: float) -> torch.Tensor:
    scale = float(np.float16(largest / 127))
    return torch.clamp(torch.round(values / scale), -128, 127) * scale


def by_hand(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The toy in float32 with every rounding written out."""

    def weight(name: str) -> torch.Tensor:
        w = torch.from_numpy(weights[name].astype(np.float32))
        largest = w.abs().amax(dim=(1, 2, 3))
        scale = (largest / 127).half().float().view(-1, 1, 1, 1)
        return torch.round(w / scale).clamp(-127, 127) * scale

    def bias(name: str) -> torch.Tensor:
        return torch.from_numpy(weights[name].astype(np.float32))

    conv = torch.nn.functional.conv2d
    first = conv(rounded(torch.from_numpy(x), 1.0), weight("w0"), bias("b0"), padding=1)
    # The pool's two sides have one scale, the larger range's.
    pooled = torch.nn.functional.max_pool2d(rounded(first.relu(), 4.0), 2)
    second = conv(pooled, weight("w1"), bias("b1"), padding=1)
    return (second + pooled).relu().numpy()


@pytest.mark.parametrize("seed", range(4))
def test_a_quantised_network_rounds_as_it_says(seed: int) -> None:
    data, weights = toy(seed)
    quantised = quantize(data, RANGES)
    onnx.checker.check_model(onnx.load_model_from_string(quantised), full_check=True)
    x = np.random.default_rng(100 + seed).standard_normal((2, 3, 8, 8)).astype(np.float32)
    (got,) = ReferenceEvaluator(onnx.load_model_from_string(quantised)).run(
        None, {"x": x.astype(np.float16)}
    )
    expected = by_hand(x.astype(np.float16).astype(np.float32), weights)
    # float16 between the roundings may push a value over to the next level.
    step = 4 / 127
    assert np.abs(got - expected).max() < 5 * step
    (free,) = ReferenceEvaluator(onnx.load_model_from_string(data)).run(
        None, {"x": x.astype(np.float16)}
    )
    assert np.abs(free - expected).max() > 30 * step


def test_what_is_asked_for_is_what_is_needed() -> None:
    data, _ = toy()
    model = onnx.load_model_from_string(data)
    assert [layer.name for layer in find_layers(model)] == ["first", "second"]
    assert [layer.residual for layer in find_layers(model)] == [None, "p0"]
    assert sorted(observed_tensors(model)) == ["p0", "r0", "x"]
    for missing in RANGES:
        with pytest.raises(PackError, match=f"range of tensor {missing} .*None"):
            quantize(data, {name: value for name, value in RANGES.items() if name != missing})
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(PackError, match="range of tensor x between 0 and 65504"):
            quantize(data, {**RANGES, "x": wrong})


def test_a_layer_can_stay_as_it_is() -> None:
    data, _ = toy()
    model = onnx.load_model_from_string(quantize(data, RANGES, keep_float=["second"]))
    (second,) = [node for node in model.graph.node if node.name == "second"]
    assert list(second.input[:2]) == ["p0", "w1"]
    with pytest.raises(PackError, match="third"):
        quantize(data, RANGES, keep_float=["third"])


def test_a_network_of_another_type_is_refused() -> None:
    model = onnx.load_model_from_string(toy()[0])
    for tensor in model.graph.initializer:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    with pytest.raises(PackError, match=r"weight w0 must be float16, .*\(got FLOAT\); export"):
        quantize(model.SerializeToString(), RANGES)


def test_both_sides_of_a_max_pool_have_one_scale() -> None:
    data, _ = toy()
    model = onnx.load_model_from_string(quantize(data, RANGES))
    scales = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert scales["p0_scale"] == scales["r0_scale"] == np.float16(4.0 / 127)


@pytest.mark.parametrize("to", ["int8", "fp8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_the_shipped_networks_is_quantised(pack: Pack, name: str, to) -> None:
    model = onnx.load_model_from_string(pack.read(name))
    layers = find_layers(model)
    convolutions = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert [layer.name for layer in layers] == [node.name for node in convolutions]
    quantised = onnx.load_model_from_string(
        quantize(pack.read(name), pack.calibration.networks[name].ranges, to=to)
    )
    onnx.checker.check_model(quantised)
    makers = {out: node.op_type for node in quantised.graph.node for out in node.output}
    names = [out for node in quantised.graph.node for out in node.output]
    assert len(names) == len(set(names))
    for node in quantised.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert [makers[given] for given in node.input[:2]] == ["DequantizeLinear"] * 2
    # A tensor is quantised once, whoever reads it.
    sources = [n.input[0] for n in quantised.graph.node if n.op_type == "QuantizeLinear"]
    assert len(sources) == len(set(sources))
