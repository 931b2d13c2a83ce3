"""The shapes that are followed through networks, against onnx's own inference; and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rbc_engine.packs.graphs.onnx_file import read_graph
from rbc_engine.packs.graphs.onnx_shapes import follow_shapes
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.packs.quantize import observed_tensors, quantize

F16, F32, I64 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT64


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def weights(name, *shape):
    return numpy_helper.from_array(np.ones(shape, np.float16), name)


def build(nodes, tensors=(), *, shape=(1, 6, 20, 31), opset=20):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F16, shape)],
        [helper.make_empty_tensor_value_info("y")],
        list(tensors),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(kind, inputs, output="y", **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


def inferred(model):
    """By onnx itself: the shape of every tensor that a node makes."""
    whole = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )
    return {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in (*whole.graph.value_info, *whole.graph.output)
    }


def everything_named(model):
    """The model with every tensor among its outputs, so that all shapes show."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    made = [name for one in copy.graph.node for name in one.output]
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in made)
    return copy


CASES = {
    "conv": build(
        [node("Conv", ["x", "w", "b"], strides=[2, 1], pads=[1, 0, 2, 3], dilations=[1, 2])],
        [weights("w", 4, 6, 3, 5), weights("b", 4)],
    ),
    "depthwise": build([node("Conv", ["x", "w"], group=6)], [weights("w", 12, 1, 3, 3)]),
    "max pool": build([node("MaxPool", ["x"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)]),
    "pool up": build([node("MaxPool", ["x"], kernel_shape=[3, 2], strides=[2, 3], ceil_mode=1)]),
    "average pool": build([node("AveragePool", ["x"], kernel_shape=[4, 4], strides=[3, 3])]),
    "global": build([node("GlobalAveragePool", ["x"])]),
    "mean": build([node("ReduceMean", ["x", "a"], keepdims=0)], [ints("a", -1, 2)]),
    "clip": build([node("Clip", ["x", "", "six"])], [weights("six")]),
    "transpose": build([node("Transpose", ["x"], perm=[0, 2, 3, 1])]),
    "reshape": build([node("Reshape", ["x", "s"])], [ints("s", 0, -1, 31)]),
    "flatten": build([node("Flatten", ["x"], axis=2)]),
    "squeeze": build([node("Squeeze", ["x", "a"])], [ints("a", 0)]),
    "unsqueeze": build([node("Unsqueeze", ["x", "a"])], [ints("a", -1, 1)]),
    "broadcast": build([node("Mul", ["x", "w"])], [weights("w", 6, 1, 31)]),
    "pad": build([node("Pad", ["x", "p"])], [ints("p", 0, 0, 1, 2, 0, 0, 3, 4)]),
    "slice": build(
        [node("Slice", ["x", "s", "e", "a", "t"])],
        [ints("s", -7, 1), ints("e", 10**9, -1), ints("a", 3, 1), ints("t", 2, 1)],
    ),
    "gemm": build([node("Gemm", ["x", "w"], transB=1)], [weights("w", 9, 31)], shape=(7, 31)),
    "matmul": build([node("MatMul", ["x", "w"])], [weights("w", 31, 5)]),
    "concat": build([node("Concat", ["x", "x"], axis=-1)]),
    "upsample": build(
        [
            node("Shape", ["x"], "all"),
            node("Slice", ["all", "two", "four"], "hw"),
            node("Mul", ["hw", "twice"], "doubled"),
            node("Gather", ["all", "firsts"], "nc"),
            node("Concat", ["nc", "doubled"], "sides", axis=0),
            node("Resize", ["x", "", "", "sides"], mode="nearest"),
        ],
        [ints("two", 2), ints("four", 4), ints("twice", 2, 2), ints("firsts", 0, 1)],
    ),
    "scales": build(
        [node("Resize", ["x", "", "s"], mode="linear")],
        [numpy_helper.from_array(np.array([1, 1, 2, 2.5], np.float32), "s")],
    ),
    "quantise": build(
        [node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s", "z"])],
        [
            numpy_helper.from_array(np.float16(0.1), "s"),
            numpy_helper.from_array(np.int8(0), "z"),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_operator_has_the_shapes_that_onnx_infers(name):
    model = everything_named(CASES[name])
    shape = tuple(side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim)
    work = follow_shapes(read_graph(model.SerializeToString()), {"x": shape})
    assert work.shapes == inferred(model)


@pytest.fixture(scope="module")
def pack():
    return Pack.open(find_pack("chula12"))


@pytest.mark.parametrize(
    ("name", "input_name", "shape"),
    [
        ("detector.onnx", "canvas", (1, 320, 448, 3)),
        ("box_head.onnx", "roi_features", (1000, 128, 7, 7)),
        ("classifier.onnx", "patches", (2, 3, 80, 80)),
    ],
)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_networks_of_the_pack_have_the_shapes_that_onnx_infers(
    pack, name, input_name, shape, precision
):
    data = pack.read(name)
    if precision != "fp16":
        ranges = dict.fromkeys(observed_tensors(onnx.load_from_string(data)), 1.0)
        data = quantize(data, ranges, to=precision)
    model = everything_named(onnx.load_from_string(data))
    for side, length in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        side.dim_value = length
    work = follow_shapes(read_graph(model.SerializeToString()), {input_name: shape})
    expected = inferred(model)
    assert {key: work.shapes[key] for key in expected} == expected
    assert len(expected) >= len(model.graph.node)
    assert work.multiplications > 1e8


def changed(do):
    model = build([node("Relu", ["x"], "h"), node("Sigmoid", ["h"])], [weights("w", 2)])
    do(model)
    return model.SerializeToString()


def _loop(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(node("Loop", ["x"], "z", body=body))


REFUSED = {
    "loop": (changed(_loop), "an attribute has a field 6"),
    "function": (
        changed(lambda m: m.functions.append(helper.make_function("d", "f", [], [], [], []))),
        "field 25",
    ),
    "operator": (changed(lambda m: m.graph.node.append(node("NonZero", ["x"], "z"))), "NonZero"),
    "attribute": (
        changed(lambda m: m.graph.node.append(node("Relu", ["x"], "z", quick=1))),
        "not known: 'quick'",
    ),
    "domain": (
        changed(lambda m: m.graph.node.append(node("Relu", ["x"], "z", domain="com.evil"))),
        "com.evil",
    ),
    "two opsets": (changed(lambda m: m.opset_import.append(helper.make_opsetid("x", 1))), "opset"),
    "sparse": (
        changed(lambda m: m.graph.sparse_initializer.append(onnx.SparseTensorProto())),
        "field 15",
    ),
    "element type": (
        changed(lambda m: m.graph.initializer.append(helper.make_tensor("s", 8, [1], [b"x"]))),
        "field 6|element type 8",
    ),
    "backwards": (
        changed(lambda m: m.graph.node.insert(0, node("Relu", ["h"], "z"))),
        "no node before it makes",
    ),
    "twice": (changed(lambda m: m.graph.node.append(node("Relu", ["x"], "h"))), "called 'h'"),
    "input": (
        changed(lambda m: m.graph.input.append(helper.make_tensor_value_info("z", F16, [1]))),
        "inputs must be",
    ),
    "many": (
        changed(lambda m: m.graph.node.extend(node("Relu", ["x"], f"z{i}") for i in range(2001))),
        "at most 2000",
    ),
    "xml": (b'<?xml version="1.0"?><net name="x" version="11"></net>', "kind 4|field"),
    "empty": (b"", "not ONNX"),
    "twice a graph": (changed(lambda m: None) * 2, "field"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_but_a_plain_graph_is_refused(name):
    data, says = REFUSED[name]
    with pytest.raises(ValueError, match=says):
        follow_shapes(read_graph(data), {"x": (1, 6, 20, 31)})


GROWS = [node("Concat", [f"h{i}"] * 60, f"h{i + 1}", axis=0) for i in range(9)]


@pytest.mark.parametrize(
    ("nodes", "tensors", "says"),
    [
        ([node("Relu", ["x"], "h0"), *GROWS, node("Relu", ["h9"])], [], "would make a tensor"),
        (
            [node("Pad", ["x", "p"])],
            [ints("p", 0, 0, 2**60, 0, 0, 0, 0, 0)],
            "pads must be 8 numbers",
        ),
        ([node("Resize", ["x", "", "", "s"])], [ints("s", 1, 6, 2**40, 2**40)], "would make"),
        ([node("Reshape", ["x", "s"])], [ints("s", 2**62, 4)], "not as many"),
        ([node("Conv", ["x", "w"], strides=[0, 0])], [weights("w", 1, 6, 3, 3)], "strides"),
        ([node("Conv", ["x", "w"], group=0)], [weights("w", 1, 6, 3, 3)], "0 groups"),
        ([node("Conv", ["x", "w"], group=-6)], [weights("w", 1, 6, 3, 3)], "groups"),
        ([node("MaxPool", ["x"], kernel_shape=[99, 99])], [], "kernel_shape"),
        ([node("Gather", ["x", "i"], axis=9)], [ints("i", 0)], "axis must be one of 4"),
        ([node("Transpose", ["x"], perm=[0, 0, 1, 2])], [], "perm"),
        ([node("Reshape", ["x", "x"])], [], "do not depend on pixels"),
    ],
)
def test_shapes_out_of_bounds_are_refused(nodes, tensors, says):
    with pytest.raises(ValueError, match=says):
        data = build(nodes, tensors).SerializeToString()
        follow_shapes(read_graph(data), {"x": (1, 6, 20, 31)})


def test_every_changed_byte_is_refused_or_followed():
    """Nothing but ValueError comes out, whatever the bytes."""
    rng = np.random.default_rng(5)
    followed = 0
    for whole in (CASES["upsample"], CASES["quantise"], CASES["slice"]):
        data = whole.SerializeToString()
        for at in range(len(data)):
            mutant = bytearray(data)
            mutant[at] = int(rng.integers(256))
            try:
                follow_shapes(read_graph(bytes(mutant)), {"x": (1, 6, 20, 31)})
            except ValueError:
                continue
            followed += 1
        for length in range(0, len(data), 3):
            try:
                follow_shapes(read_graph(data[:length]), {"x": (1, 6, 20, 31)})
            except ValueError:
                continue
    assert followed > 100
