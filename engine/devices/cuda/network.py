"""A TensorRT engine in one lane: its execution context, buffers, and CUDA graph of launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.devices.cuda.memory import CudaArray, LaneMemory, explain_cuda
from rbc_engine.devices.cuda.ops import CudaOps
from rbc_engine.errors import DeviceError, DeviceMemoryError
from rbc_engine.meter import Meter

__all__ = ["ClassifierNetwork", "CudaNetwork", "HeadWeights"]

_ALIGNMENT_BYTES = 256
"""Of addresses that TensorRT is given."""


class CudaNetwork:
    """Run a TensorRT engine; see rbc_engine.devices.base.Network.

    Inputs and outputs have the graph's types and fixed shapes.

    The first run with given input addresses is enqueued as it is; TensorRT may still set things up
    then. At the second one the stream is waited for and the launches are captured as a CUDA graph;
    from then on the graph runs. An input that comes at a new address every time is copied into a
    buffer of the network's own.

    engine: a trt.ICudaEngine, shared with other lanes. graph: whether to use CUDA graphs.
    notes: says so, once, if a graph could not be captured.
    """

    def __init__(
        self,
        trt: Any,
        engine: Any,
        memory: LaneMemory,
        *,
        name: str,
        graph: bool,
        notes: list[str],
        meter: Meter | None,
    ) -> None:
        self._memory = memory
        self._name = f"network {name}"
        self._meter = meter
        self._notes = notes
        self._wants_graph = graph
        self._graph: Any = None
        self._ran_here = False
        with explain_cuda(f"{memory.place}: {self._name}"):
            self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceMemoryError(
                f"{memory.place}: {self._name}: no memory for its "
                f"{engine.device_memory_size_v2 >> 20} MiB of layers"
            )
        self.inputs: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self.outputs: dict[str, CudaArray] = {}
        for tensor in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            shape, dtype = _described(trt, engine, tensor)
            if engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT:
                self.inputs[tensor] = (shape, dtype)
            else:
                self.outputs[tensor] = memory.empty(shape, dtype)
                self._bind(tensor, self.outputs[tensor])
        self.channels_last = {
            tensor: engine.get_tensor_format(tensor) != trt.TensorFormat.LINEAR
            for tensor in self.outputs
        }
        self._bound: dict[str, CudaArray] = {}
        self._own: dict[str, CudaArray] = {}

    def __call__(self, inputs: Mapping[str, CudaArray]) -> dict[str, CudaArray]:
        """Enqueue the network on the lane's stream. The next call overwrites the outputs."""
        if inputs.keys() != self.inputs.keys():
            raise ValueError(f"inputs must be {sorted(self.inputs)} (got {sorted(inputs)})")
        for tensor, (shape, dtype) in self.inputs.items():
            array = inputs[tensor]
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"input {tensor} must be {dtype} {list(shape)} (got {array!r})")
            self._place(tensor, array)
        with (
            explain_cuda(f"{self._memory.place}: {self._name}"),
            self._memory.network(self._meter),
        ):
            self._run()
        return dict(self.outputs)

    def close(self) -> None:
        """Free the graph and the context, in this order: the graph uses the context's memory."""
        try:
            self._forget_graph()
        finally:
            self._graph = None
            self._context = None
            self.outputs.clear()
            self._bound.clear()
            self._own.clear()

    def _place(self, tensor: str, array: CudaArray) -> None:
        """Make the network read this array, in place where it always comes at this address."""
        bound = self._bound.get(tensor)
        if bound is not None and bound.address == array.address and array.stable:
            return
        if array.stable and array.address % _ALIGNMENT_BYTES == 0 and tensor not in self._own:
            self._rebind(tensor, array)
            return
        if tensor not in self._own:
            self._own[tensor] = self._memory.empty(array.shape, array.dtype)
            self._rebind(tensor, self._own[tensor])
        self._memory.copy(array, self._own[tensor])

    def _rebind(self, tensor: str, array: CudaArray) -> None:
        self._bound[tensor] = array
        self._bind(tensor, array)
        self._forget_graph()
        self._ran_here = False

    def _bind(self, tensor: str, array: CudaArray) -> None:
        if not self._context.set_tensor_address(tensor, array.address):
            raise DeviceError(f"{self._name}: TensorRT refuses the address of {tensor}")

    def _run(self) -> None:
        if self._wants_graph and self._ran_here and self._graph is None:
            self._capture()
        if self._graph is not None:
            self._graph.launch(self._memory.stream)
        else:
            self._enqueue()
            self._ran_here = True

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._memory.stream_handle):
            raise DeviceError(f"{self._name}: TensorRT could not enqueue it")

    def _capture(self) -> None:
        stream = self._memory.stream
        stream.sync()
        builder = stream.create_graph_builder()
        try:
            # What other lanes do meanwhile, on threads of their own, is none of this capture's
            # business.
            builder.begin_building("thread_local")
            try:
                self._enqueue()
            finally:
                builder.end_building()
            self._graph = builder.complete()
        except Exception as error:
            # The network runs as well without, only with more work for the CPU.
            self._wants_graph = False
            note = f"{self._name} runs without a CUDA graph, which could not be captured: {error}"
            if note not in self._notes:
                self._notes.append(note)
        finally:
            builder.close()

    def _forget_graph(self) -> None:
        """Free the graph, after waiting for the stream: the graph may be running."""
        if self._graph is not None:
            with explain_cuda(f"{self._memory.place}: {self._name}"):
                self._memory.stream.sync()
                self._graph.close()
            self._graph = None


class HeadWeights:
    """Hold the heads of a classifier on a GPU, as `fused_heads` takes them.

    NAMES: in classifier.onnx.
    """

    NAMES = (
        "model.head.first.weight",
        "model.head.first.bias",
        "model.head.second.weight",
        "model.head.second.bias",
    )

    def __init__(self, memory: LaneMemory, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        first, first_bias, second, second_bias = (
            np.ascontiguousarray(weights[name], np.float16) for name in self.NAMES
        )
        types, hidden = second.shape[:2]
        self.first_weight = memory.upload(first.reshape(types * hidden, -1))
        self.first_bias = memory.upload(first_bias.reshape(types * hidden))
        self.second_weight = memory.upload(second.reshape(types, hidden))
        self.second_bias = memory.upload(second_bias.reshape(types))
        memory.wait()


class ClassifierNetwork:
    """Run the trunk by TensorRT and the heads by one kernel: `patches` -> `probabilities`."""

    def __init__(self, trunk: CudaNetwork, heads: HeadWeights, ops: CudaOps) -> None:
        self._trunk = trunk
        self._heads = heads
        self._ops = ops
        # Networks of several batch sizes share a lane, and each keeps its own result.
        (self._patches,) = (shape[0] for shape, _ in trunk.inputs.values())

    def __call__(self, inputs: Mapping[str, CudaArray]) -> dict[str, CudaArray]:
        feature_map = self._trunk(inputs)["feature_map"]
        heads = self._heads
        probabilities = self._ops.fused_heads(
            feature_map,
            channels_last=self._trunk.channels_last["feature_map"],
            first_weight=heads.first_weight,
            first_bias=heads.first_bias,
            second_weight=heads.second_weight,
            second_bias=heads.second_bias,
            owner=f"heads of {self._patches} patches",
        )
        return {"probabilities": probabilities}

    def close(self) -> None:
        self._trunk.close()


def _described(trt: Any, engine: Any, tensor: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an input or output. Both are fixed when the engine is built."""
    dtypes: Mapping[Any, Any] = {
        trt.DataType.HALF: np.float16,
        trt.DataType.FLOAT: np.float32,
        trt.DataType.UINT8: np.uint8,
        trt.DataType.INT32: np.int32,
    }
    kind = engine.get_tensor_dtype(tensor)
    if kind not in dtypes:
        raise DeviceError(
            f"{tensor} of the network has type {kind}, which the engine does not read"
        )
    shape: Sequence[int] = engine.get_tensor_shape(tensor)
    return tuple(int(length) for length in shape), np.dtype(dtypes[kind])
