"""Insert Q/DQ nodes into a network of a pack, from the ranges of its calibration.json alone.

The form is the one that both TensorRT and OpenVINO accept: activations symmetric, one scale per
tensor; weights symmetric, one scale per output channel, stored as integers; biases unchanged. A
tensor has one scale for all its readers, so that nothing is quantised twice between layers that a
runtime fuses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rbc_engine.errors import PackError

__all__ = ["Layer", "Quantized", "find_layers", "observed_tensors", "quantize"]

Quantized = Literal["int8", "fp8"]

_LARGEST = {"int8": 127.0, "fp8": 448.0}  # of E4M3
_TYPE = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
# A scale is a float16 in the graph. Below its normal numbers it would lose digits, and a runtime
# may treat it as 0.
_SMALLEST_SCALE = 2.0**-14


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Describe a convolution or a matrix product with fixed weights.

    name: of its node. activation, weight: the tensors that it multiplies.
    residual: the tensor added to its output right after, if it is the later of the two to be
    computed.
    """

    name: str
    activation: str
    weight: str
    residual: str | None = None


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """Return the layers that can be quantised, in the order of execution."""
    weights = {tensor.name for tensor in model.graph.initializer}
    adds = {name: node for node in model.graph.node if node.op_type == "Add" for name in node.input}
    order = {name: place for place, node in enumerate(model.graph.node) for name in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in weights:
            continue
        residual = None
        add = adds.get(node.output[0])
        if add is not None:
            (other,) = [name for name in add.input if name != node.output[0]] or [None]
            # A runtime fuses the addition into the convolution that comes last.
            if other is not None and order.get(other, -1) < order[node.output[0]]:
                residual = other
        found.append(
            Layer(name=node.name, activation=node.input[0], weight=node.input[1], residual=residual)
        )
    return found


def observed_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the tensors for which `quantize` needs ranges."""
    names: dict[str, None] = {}
    for layer in find_layers(model):
        names[layer.activation] = None
        if layer.residual is not None:
            names[layer.residual] = None
    pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
    for chain in _pool_chains(pools):
        if not chain.isdisjoint(names):
            names |= dict.fromkeys(sorted(chain))
    return list(names)


def quantize(
    data: bytes,
    ranges: Mapping[str, float],
    *,
    to: Quantized = "int8",
    keep_float: Collection[str] = (),
) -> bytes:
    """Quantise the layers of a pack's network to int8 or fp8.

    data: ONNX, typed float16.
    ranges: largest absolute value of each of `observed_tensors`, greater than 0.
    keep_float: names of layers that stay in float.

    Returns ONNX. Raises PackError for a range that is missing or not positive, an unknown layer,
    and a network that is not typed float16.
    """
    model = onnx.load_from_string(data)
    layers = find_layers(model)
    if unknown := sorted(set(keep_float) - {layer.name for layer in layers}):
        raise PackError(
            f"calibration.json keeps layers in float that the network does not have: {unknown}"
        )
    chosen = {layer.name: layer for layer in layers if layer.name not in keep_float}
    graph = _Graph(model, ranges, to)
    for layer in chosen.values():
        graph.quantize_weight(layer.weight)
    for node in list(model.graph.node):
        if node.name not in chosen:
            continue
        layer = chosen[node.name]
        node.input[0] = graph.quantized(layer.activation)
        node.input[1] = f"{layer.weight}_dq"
        if layer.residual is not None:
            graph.requantize_residual(node.output[0], layer.residual)
    graph.finish()
    return bytes(model.SerializeToString())


class _Graph:
    """Insert nodes into a graph."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, float], to: Quantized) -> None:
        self._model = model
        self._ranges = ranges
        self._to = to
        self._before: dict[str, list[onnx.NodeProto]] = {}
        """New nodes by the tensor that they follow; '' for those at the very beginning."""
        self._constants: list[onnx.TensorProto] = []
        self._replaced: set[str] = set()
        self._pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
        self._tied = {name: tensors for tensors in _pool_chains(self._pools) for name in tensors}
        self._done: set[str] = set()

    def quantized(self, tensor: str) -> str:
        """Return the name under which the tensor is read where it is quantised.

        The input and output of a max pool share one scale: the largest of quantised values is one
        of them, so that it runs in integers.
        """
        if tensor not in self._done:
            self._done.add(tensor)
            for pool in self._pools:
                if pool.output[0] == tensor:
                    pool.input[0] = self.quantized(pool.input[0])
            self._insert(tensor)
        return f"{tensor}_dq"

    def quantize_weight(self, name: str) -> None:
        if name in self._replaced:
            return
        self._replaced.add(name)
        (tensor,) = [t for t in self._model.graph.initializer if t.name == name]
        if tensor.data_type != TensorProto.FLOAT16:
            raise PackError(
                f"the network's weight {name} must be float16, as packs are exported "
                f"(got {TensorProto.DataType.Name(tensor.data_type)}); export the pack again"
            )
        weight = numpy_helper.to_array(tensor).astype(np.float32)
        axes = tuple(range(1, weight.ndim))
        largest = np.maximum(weight.max(axis=axes), -weight.min(axis=axes))
        scale = np.maximum(largest / _LARGEST[self._to], _SMALLEST_SCALE).astype(np.float16)
        weight /= scale.astype(np.float32).reshape(-1, *[1] * len(axes))
        self._constants += [
            numpy_helper.from_array(scale, f"{name}_scale"),
            self._stored(f"{name}_q", weight),
            self._zero(f"{name}_zero", len(scale)),
        ]
        node = helper.make_node(
            "DequantizeLinear",
            [f"{name}_q", f"{name}_scale", f"{name}_zero"],
            [f"{name}_dq"],
            name=f"{name}_dq",
            axis=0,
        )
        self._before.setdefault("", []).append(node)

    def requantize_residual(self, output: str, residual: str) -> None:
        name = self.quantized(residual)
        for node in self._model.graph.node:
            if node.op_type == "Add" and output in node.input:
                for place, given in enumerate(node.input):
                    if given == residual:
                        node.input[place] = name

    def finish(self) -> None:
        """Put the new nodes where they belong, and remove weights that nothing reads any more."""
        graph = self._model.graph
        nodes = self._before.pop("", [])
        for value in graph.input:
            nodes += self._before.pop(value.name, [])
        for node in graph.node:
            nodes.append(node)
            for name in node.output:
                nodes += self._before.pop(name, [])
        # extend copies: without copying the list first, the nodes would be gone with their graph.
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in graph.node for name in node.input}
        tensors = [t for t in graph.initializer if t.name in read] + self._constants
        del graph.initializer[:]
        graph.initializer.extend(tensors)

    def _scale(self, tensor: str) -> npt.NDArray[np.float16]:
        largest = 0.0
        for name in self._tied.get(tensor, (tensor,)):
            value = self._ranges.get(name)
            if value is None or not 0 < value < 65504:
                raise PackError(
                    f"calibration.json must have a range of tensor {name} between 0 and 65504 (got "
                    f"{value}); run `rbc-engine calibrate` for this pack again"
                )
            largest = max(largest, value)
        return np.array(max(largest / _LARGEST[self._to], _SMALLEST_SCALE), np.float16)

    def _insert(self, tensor: str) -> None:
        self._constants += [
            numpy_helper.from_array(self._scale(tensor), f"{tensor}_scale"),
            self._zero(f"{tensor}_zero", None),
        ]
        self._before.setdefault(tensor, []).extend(
            helper.make_node(
                kind,
                [read, f"{tensor}_scale", f"{tensor}_zero"],
                [f"{tensor}_{end}"],
                name=f"{tensor}_{end}",
            )
            for kind, read, end in (
                ("QuantizeLinear", tensor, "q"),
                ("DequantizeLinear", f"{tensor}_q", "dq"),
            )
        )

    def _stored(self, name: str, scaled: npt.NDArray[np.float32]) -> onnx.TensorProto:
        if self._to == "int8":
            # A scale is rounded to a float16, so the largest may be 127.06: it still rounds to 127.
            return numpy_helper.from_array(np.rint(scaled, out=scaled).astype(np.int8), name)
        return helper.make_tensor(
            name, TensorProto.FLOAT8E4M3FN, scaled.shape, np.clip(scaled, -448, 448).ravel()
        )

    def _zero(self, name: str, count: int | None) -> onnx.TensorProto:
        shape = [] if count is None else [count]
        return helper.make_tensor(name, _TYPE[self._to], shape, [0] * (count or 1))


def _pool_chains(pools: Sequence[onnx.NodeProto]) -> list[set[str]]:
    """Return the tensors that max pools join, from one to the next."""
    chains: list[set[str]] = []
    for pool in pools:
        joined = {pool.input[0], pool.output[0]}
        apart = [chain for chain in chains if chain.isdisjoint(joined)]
        chains = [*apart, joined.union(*(chain for chain in chains if chain not in apart))]
    return chains
