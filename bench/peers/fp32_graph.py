"""Retype an ONNX graph from float16 to float32: ONNX Runtime has no fast float16 on a CPU."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper

__all__ = ["as_fp32"]


def as_fp32(data: bytes) -> bytes:
    """Make every float16 tensor, constant, cast, input and output float32; nothing else changes."""
    model = onnx.load_model_from_string(data)
    _widen_graph(model.graph)
    onnx.checker.check_model(model, full_check=True)
    widened: bytes = model.SerializeToString()
    return widened


def _widen_graph(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _widen(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen(attribute.t)
            elif attribute.type == AttributeProto.GRAPH:
                _widen_graph(attribute.g)
            elif node.op_type == "Cast" and attribute.name == "to":
                attribute.i = (
                    TensorProto.FLOAT if attribute.i == TensorProto.FLOAT16 else attribute.i
                )


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
