"""Weights out of ONNX files, against the onnx package."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rbc_engine.devices.cuda.network import HeadWeights
from rbc_engine.devices.cuda.weights import read_weights
from rbc_engine.errors import PackError
from rbc_engine.packs.pack import Pack, find_pack

RNG = np.random.default_rng(0)


def model(**weights: np.ndarray) -> bytes:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n"])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [], tensors)
    return helper.make_model(graph).SerializeToString()


def test_reads_what_onnx_reads() -> None:
    weights = {
        "a": RNG.normal(size=(3, 300)).astype(np.float16),
        "b": RNG.normal(size=(2, 1, 4)).astype(np.float32),
        "scalar": np.float16(3),
        "empty": np.zeros((0, 5), np.float32),
    }
    got = read_weights(model(**{k: np.asarray(v) for k, v in weights.items()}), list(weights))
    for name, array in weights.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_heads_of_the_shipped_pack() -> None:
    data = Pack.open(find_pack("chula12")).read("classifier.onnx")
    expected = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(data).graph.initializer
        if tensor.name in HeadWeights.NAMES
    }
    got = read_weights(data, HeadWeights.NAMES)
    assert got.keys() == expected.keys() == set(HeadWeights.NAMES)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(PackError, match="no weights c, d"):
        read_weights(model(a=np.zeros(2, np.float16)), ["a", "c", "d"])


def test_other_types_are_refused() -> None:
    with pytest.raises(PackError, match="raw float16 or float32"):
        read_weights(model(a=np.zeros(2, np.int64)), ["a"])


def test_damaged_files_raise_nothing_else() -> None:
    whole = model(a=RNG.normal(size=(3, 30)).astype(np.float16), b=np.zeros(4, np.float32))
    right = read_weights(whole, ["a", "b"])
    graph_ends = whole.rindex(b"b") + 1
    refused = 0
    for length in range(len(whole)):
        try:
            got = read_weights(whole[:length], ["a", "b"])
        except PackError:
            refused += 1
            continue
        assert length > graph_ends
        for name, array in right.items():
            np.testing.assert_array_equal(got[name], array)
    assert refused >= graph_ends
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        try:
            got = read_weights(bytes(changed), ["a"])
        except PackError:
            continue
        assert got["a"].size < 1000
