"""tensorrt as far as the engine uses it, without a GPU: a plan holds the ONNX file, and OpenVINO
computes it.

As with TensorRT, outputs have the graph's types, nothing may be captured before it ran once, and a
plan that was changed is refused.
"""

from __future__ import annotations

import json
import threading
from enum import IntEnum
from types import SimpleNamespace

import numpy as np
import onnx

from rbc_engine.devices.cpu.device import HostDevice

_KINDS = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8, "INT32": np.int32}
# Shared by all machines of a test run: compiling takes longer than running.
_compiled: dict = {}
_computing = threading.Lock()
_ONNX = {1: "FLOAT", 10: "HALF", 2: "UINT8", 6: "INT32"}


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    UINT8 = 5


class TensorFormat(IntEnum):
    LINEAR = 0
    HWC8 = 3


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


def make_tensorrt(gpus, *, version: str = "11.4.0.106") -> SimpleNamespace:
    """The module. `builds` on it counts the networks that were compiled; `fail_enqueue`, a set,
    takes names of inputs whose network is refused by execute_async_v3; `no_memory`, whether
    contexts find none.
    """
    host = HostDevice(precision="fp32", lanes=1, threads=1)
    module = SimpleNamespace()

    class Logger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0, WARNING=2)

        def __init__(self) -> None:
            pass

    class ProgressMonitor:
        def __init__(self) -> None:
            pass

    class Tensor:
        def __init__(self, name, dtype, shape) -> None:
            self.name, self.dtype, self.shape, self.allowed_formats = name, dtype, shape, 0b1

    class Network:
        def __init__(self) -> None:
            self.inputs: list[Tensor] = []
            self.outputs: list[Tensor] = []
            self.onnx = b""

        num_inputs = property(lambda self: len(self.inputs))
        num_outputs = property(lambda self: len(self.outputs))

        def get_input(self, index):
            return self.inputs[index]

        def get_output(self, index):
            return self.outputs[index]

        def unmark_output(self, tensor) -> None:
            self.outputs.remove(tensor)

    class OnnxParser:
        num_errors = 1

        def __init__(self, network, log) -> None:
            self._network = network

        def get_error(self, index):
            return SimpleNamespace(desc=lambda: "this is no ONNX model")

        def parse(self, data) -> bool:
            try:
                graph = onnx.load_from_string(data).graph
            except Exception:
                return False
            self._network.onnx = data
            for values, tensors in (
                (graph.input, self._network.inputs),
                (graph.output, self._network.outputs),
            ):
                for value in values:
                    kind = value.type.tensor_type
                    dims = [dim.dim_value or -1 for dim in kind.shape.dim]
                    tensors.append(Tensor(value.name, _ONNX[kind.elem_type], dims))
            return True

    class TimingCache:
        def serialize(self):
            return b"timed"

    class Config:
        progress_monitor = None
        max_aux_streams = None

        def set_memory_pool_limit(self, pool, size) -> None:
            assert size > 0

        def create_timing_cache(self, data):
            assert data in (b"", b"timed")
            return TimingCache()

        def set_timing_cache(self, cache, ignore_mismatch) -> bool:
            assert ignore_mismatch is False
            return True

    class Builder:
        def __init__(self, log) -> None:
            self._log = log

        def create_network(self, flags):
            return Network()

        def create_builder_config(self):
            return Config()

        def build_serialized_network(self, network, config):
            module.builds += 1
            monitor = config.progress_monitor
            if monitor is not None:
                monitor.phase_start("Building", None, 2)
                going = all(monitor.step_complete("Building", step) for step in range(2))
                monitor.phase_finish("Building")
                if not going:
                    return None
            if any(-1 in tensor.shape for tensor in network.inputs):
                self._log.log(
                    Logger.Severity.ERROR, "a dimension is dynamic, and there is no profile"
                )
                return None
            head = {
                "inputs": {tensor.name: list(tensor.shape) for tensor in network.inputs},
                "outputs": [
                    [tensor.name, tensor.dtype, bool(tensor.allowed_formats >> TensorFormat.HWC8)]
                    for tensor in network.outputs
                ],
                "kinds": {tensor.name: tensor.dtype for tensor in network.inputs},
            }
            return json.dumps(head).encode() + b"\n" + network.onnx

    class Context:
        def __init__(self, engine) -> None:
            self._engine = engine
            self._addresses: dict[str, int] = {}
            self._ran = False

        def set_tensor_address(self, name, address) -> bool:
            assert address % 256 == 0
            self._addresses[name] = address
            return True

        def execute_async_v3(self, handle) -> bool:
            engine, stream = self._engine, gpus.streams[handle]
            if module.fail_enqueue & engine.shapes.keys():
                return False
            assert self._addresses.keys() == engine.kinds.keys(), "an address is missing"
            assert stream.captured is None or self._ran, "captured before it ran once"
            self._ran = True
            addresses = dict(self._addresses)

            def work() -> None:
                read = lambda name, shape: gpus.view(  # noqa: E731
                    addresses[name], shape, _KINDS[engine.kinds[name]], on=stream.number
                )
                arrays = {}
                for name, shape in engine.inputs.items():
                    array = read(name, shape)
                    arrays[name] = (
                        array.copy() if array.dtype == np.uint8 else array.astype(np.float32)
                    )
                for name, result in engine.compute(arrays).items():
                    if engine.channels_last[name]:
                        result = np.moveaxis(result, 1, 3)
                    read(name, result.shape)[:] = result

            stream.put(work)
            return True

    class Engine:
        device_memory_size_v2 = 1 << 20

        def __init__(self, head, data) -> None:
            self.inputs = {name: tuple(shape) for name, shape in head["inputs"].items()}
            self.kinds = dict(head["kinds"]) | {name: kind for name, kind, _ in head["outputs"]}
            self.channels_last = {name: last for name, _, last in head["outputs"]}
            key = (data, tuple(self.channels_last), tuple(self.inputs.items()))
            if key not in _compiled:
                _compiled[key] = host.load(
                    data, outputs=list(self.channels_last), shapes=self.inputs
                )
            network = _compiled[key]

            def compute(arrays):
                with _computing:
                    return {name: array.copy() for name, array in network(arrays).items()}

            self.compute = compute
            zeros = {
                name: np.zeros(shape, np.uint8 if self.kinds[name] == "UINT8" else np.float32)
                for name, shape in self.inputs.items()
            }
            self.shapes = dict(self.inputs) | {
                name: result.shape for name, result in self.compute(zeros).items()
            }
            self._names = list(self.kinds)
            self.num_io_tensors = len(self._names)

        def get_tensor_name(self, index):
            return self._names[index]

        def get_tensor_shape(self, name):
            return self.shapes[name]

        def get_tensor_dtype(self, name):
            return DataType[self.kinds[name]]

        def get_tensor_mode(self, name):
            return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

        def get_tensor_format(self, name):
            return TensorFormat.HWC8 if self.channels_last.get(name) else TensorFormat.LINEAR

        def create_execution_context(self):
            return None if module.no_memory else Context(self)

    class Runtime:
        def __init__(self, log) -> None:
            pass

        def deserialize_cuda_engine(self, plan):
            head, _, data = plan.partition(b"\n")
            try:
                return Engine(json.loads(head), data)
            except ValueError:
                return None

    module.__dict__.update(
        __version__=version,
        builds=0,
        fail_enqueue=set(),
        no_memory=False,
        ILogger=Logger,
        IProgressMonitor=ProgressMonitor,
        Builder=Builder,
        OnnxParser=OnnxParser,
        Runtime=Runtime,
        DataType=DataType,
        TensorFormat=TensorFormat,
        TensorIOMode=TensorIOMode,
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
    )
    return module
