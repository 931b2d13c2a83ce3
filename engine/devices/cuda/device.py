"""An NVIDIA GPU as a device: networks by TensorRT, the project's kernels, memory by cuda.core.

Import it only after rbc_engine.devices.cuda.needs found nothing missing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.closing import Closing
from rbc_engine.devices.base import BuildWatch, HostArray
from rbc_engine.devices.cuda.memory import CudaArray, LaneMemory, explain_cuda
from rbc_engine.devices.cuda.network import ClassifierNetwork, CudaNetwork, HeadWeights
from rbc_engine.devices.cuda.ops import CudaOps
from rbc_engine.devices.cuda.plan_build import build_plan, make_log, tensorrt_failure
from rbc_engine.devices.cuda.plan_cache import PlanCache, PlanKey, cache_folder
from rbc_engine.devices.cuda.weights import read_weights
from rbc_engine.errors import DeviceError, UsageError
from rbc_engine.meter import Meter
from rbc_engine.types.frames import DevicePixels, Place

__all__ = ["FP8_CAPABILITY", "GPU_PRECISIONS", "CudaDevice", "CudaGpu", "Libraries", "open_gpu"]

FP8_CAPABILITY = (8, 9)
"""Compute capability that has it: Ada."""

GPU_PRECISIONS = ("fp8", "int8", "fp16")
"""Fastest first.

fp16 is the type that packs are exported in; the others are made of their calibration.
"""

_FEATURE_MAP = "feature_map"


class Libraries:
    """Hold NVIDIA's libraries and the project's kernels.

    One of these serves the whole process: TensorRT takes one log only.
    """

    def __init__(self, trt: Any, core: Any, driver: Any, kernels: Any) -> None:
        self.trt = trt
        self.core = core
        self.driver = driver
        self.kernels = kernels
        self.log = make_log(trt)


_lock = threading.Lock()
_libraries: Libraries | None = None


def _load_libraries() -> Libraries:
    global _libraries
    with _lock:
        if _libraries is None:
            try:
                import cuda.core as core
                import cuda.core.utils  # noqa: F401
                import tensorrt as trt
                from cuda.bindings import driver
            except ImportError as error:
                raise DeviceError(
                    f"cannot load NVIDIA's libraries: {error}; install them again: "
                    f"pip install 'rbc-engine[cuda]' --extra-index-url https://pypi.nvidia.com"
                ) from error
            from rbc_engine import _kernels

            _libraries = Libraries(trt, core, driver, _kernels.cuda)
        return _libraries


def open_gpu(
    number: int,
    *,
    precision: str = "auto",
    cache_name: str = "unnamed",
    watch: BuildWatch | None = None,
    graphs: bool = True,
    cache_root: Path | None = None,
    libraries: Libraries | None = None,
) -> CudaGpu:
    """Open GPU `number`.

    precision: one of GPU_PRECISIONS, or 'auto' for fp16.
    cache_name: a folder for the compiled networks, under cache_root (by default cache_folder()).
    graphs: whether networks run as CUDA graphs.
    libraries: instead of NVIDIA's, for tests.

    Raises UsageError for another precision, DeviceError if the GPU does not start or lacks it.
    """
    if precision not in ("auto", *GPU_PRECISIONS):
        raise UsageError(
            f"--precision must be auto, {', '.join(GPU_PRECISIONS)} on a GPU (got {precision!r}): "
            "packs are exported in fp16"
        )
    return CudaGpu(
        libraries or _load_libraries(),
        number,
        precision="fp16" if precision == "auto" else precision,
        cache_name=cache_name,
        watch=watch,
        graphs=graphs,
        cache_root=cache_root or cache_folder(),
    )


class CudaGpu:
    """Hold what the lanes of one GPU share: engines, weights of the heads, compiled networks."""

    def __init__(
        self,
        libraries: Libraries,
        number: int,
        *,
        precision: str,
        cache_name: str,
        watch: BuildWatch | None,
        graphs: bool,
        cache_root: Path,
    ) -> None:
        self.libraries = libraries
        self.number = number
        self.place = Place("cuda", number)
        self.precision = precision
        self.graphs = graphs
        self.notes: list[str] = []
        """What was given up, e.g. CUDA graphs."""
        self._watch = watch
        trt = libraries.trt
        with explain_cuda(f"{self.place}"):
            device = libraries.core.Device(number)
            device.set_current()
            self.gpu_name = str(device.name)
            self.capability = (
                int(device.compute_capability.major),
                int(device.compute_capability.minor),
            )
            if precision == "fp8" and self.capability < FP8_CAPABILITY:
                raise DeviceError(
                    f"{self.place}: {self.gpu_name} has no fp8 arithmetic (compute capability "
                    f"{self.capability[0]}.{self.capability[1]}, fp8 needs 8.9); use --precision "
                    "int8 or fp16"
                )
            # Ordered by streams where the driver offers that, which is nearly everywhere.
            self.pool = device.memory_resource
            self._runtime = trt.Runtime(libraries.log)
        self.backend = f"TensorRT {trt.__version__}"
        self.name = f"{self.place}: {self.gpu_name}"
        self._cache = PlanCache(cache_root, pack=cache_name, gpu=self.gpu_name)
        self._lock = threading.Lock()
        self._engines: dict[PlanKey, Any] = {}
        self._constants = LaneMemory(libraries.core, number, self.pool)
        self._heads: dict[bytes, HeadWeights] = {}

    def lane(self) -> CudaDevice:
        return CudaDevice(self)

    def enter(self) -> None:
        """Make the GPU current in the calling thread."""
        with explain_cuda(f"{self.place}"):
            self.libraries.core.Device(self.number).set_current()

    def engine(
        self,
        onnx: bytes,
        *,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        channels_last: Sequence[str] = (),
    ) -> Any:
        """Return the trt.ICudaEngine, from this process, from the disk, or compiled now."""
        trt = self.libraries.trt
        key = PlanKey.of(
            onnx,
            outputs=outputs,
            shapes=shapes,
            precision=self.precision,
            gpu=self.gpu_name,
            capability=self.capability,
            tensorrt=str(trt.__version__),
        )
        with self._lock:
            if key in self._engines:
                return self._engines[key]
            plan, reason = self._cache.read(key)
            engine = self._deserialize(plan) if plan is not None else None
            if plan is not None and engine is None:
                reason = f"{key.file_name} is refused by TensorRT"
            if engine is None:
                self._say(f"{self.name}: compiling {key.shapes} ({reason})")
                plan, timing = build_plan(
                    trt,
                    self.libraries.log,
                    onnx,
                    outputs=outputs,
                    shapes=shapes,
                    channels_last=channels_last,
                    timing=self._cache.read_timing(key.tensorrt),
                    watch=self._watch,
                )
                engine = self._deserialize(plan)
                if engine is None:
                    raise tensorrt_failure(
                        "refuses what it compiled just now", self.libraries.log.lines
                    )
                self._cache.write(key, plan)
                self._cache.write_timing(key.tensorrt, timing)
            self._engines[key] = engine
            return engine

    def heads(self, onnx: bytes) -> HeadWeights:
        """Return the weights of the classifier's heads, in memory that all lanes read."""
        with self._lock:
            if onnx not in self._heads:
                weights = read_weights(onnx, HeadWeights.NAMES)
                self._heads[onnx] = HeadWeights(self._constants, weights)
            return self._heads[onnx]

    def free_bytes(self) -> int:
        """Return the bytes of GPU memory that no process holds."""
        status, free, _ = self.libraries.driver.cuMemGetInfo()
        if int(status):
            raise DeviceError(f"{self.name}: the driver does not report its free memory ({status})")
        return int(free)

    def refuse(self) -> None:
        """Remove the compiled networks in use from the disk: they gave wrong answers."""
        with self._lock:
            for key in self._engines:
                self._cache.remove(key)

    def _deserialize(self, plan: bytes) -> Any:
        """Deserialize an engine; return None if TensorRT refuses it."""
        log = self.libraries.log
        del log.lines[:]
        with explain_cuda(f"{self.name}: loading a compiled network"):
            engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None and any("out of memory" in line.lower() for line in log.lines):
            raise tensorrt_failure("cannot load a compiled network", log.lines)
        return engine

    def _say(self, line: str) -> None:
        if self._watch is not None:
            self._watch.line(line)


class CudaDevice(Closing):
    """Represent one lane on a GPU; see rbc_engine.devices.base.Device."""

    def __init__(self, gpu: CudaGpu) -> None:
        self._gpu = gpu
        self.name = gpu.name
        self.backend = gpu.backend
        self.precision = gpu.precision
        self.memory = LaneMemory(gpu.libraries.core, gpu.number, gpu.pool)
        self.ops = CudaOps(self.memory, gpu.libraries.kernels)
        self._networks: list[CudaNetwork | ClassifierNetwork] = []

    def enter(self) -> None:
        self._gpu.enter()

    def lane(self) -> CudaDevice:
        self.enter()
        return self._gpu.lane()

    def free_bytes(self) -> int:
        return self._gpu.free_bytes()

    def upload(self, array: HostArray | CudaArray | DevicePixels) -> CudaArray:
        """Return an array of this lane. array: numpy, of this lane, or pixels decoded there."""
        if isinstance(array, np.ndarray):
            return self.memory.upload(array)
        if isinstance(array, CudaArray) and array.memory is self.memory:
            return array
        place = getattr(array, "place", None)
        if place != self._gpu.place or not hasattr(array, "__dlpack__"):
            raise ValueError(
                f"array must be numpy's or in the memory of {self.name} "
                f"(got {type(array).__name__} in that of {place})"
            )
        return self.memory.adopt(array)

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> CudaArray:
        return self.memory.empty(shape, dtype)

    def download(self, *arrays: CudaArray) -> tuple[npt.NDArray[Any], ...]:
        return self.memory.download(*arrays)

    def load(
        self,
        onnx: bytes,
        *,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        meter: Meter | None = None,
    ) -> CudaNetwork:
        """See rbc_engine.devices.base.Device.load."""
        network = self._load(onnx, outputs=outputs, shapes=shapes, meter=meter)
        self._networks.append(network)
        return network

    def load_classifier(
        self,
        onnx: bytes,
        *,
        heads: bytes,
        shape: tuple[int, int, int, int],
        meter: Meter | None = None,
    ) -> ClassifierNetwork:
        """See rbc_engine.devices.base.Device.load_classifier."""
        trunk = self._load(
            onnx,
            outputs=[_FEATURE_MAP],
            shapes={"patches": shape},
            channels_last=[_FEATURE_MAP],
            meter=meter,
        )
        network = ClassifierNetwork(trunk, self._gpu.heads(heads), self.ops)
        self._networks.append(network)
        return network

    def close(self) -> None:
        """Wait for the lane's work, then free its networks and its memory. May be called again.

        Raises DeviceError if the GPU is lost, after all that was let go of.
        """
        failures = []
        for step in (self.memory.wait, *(n.close for n in self._networks), self.memory.close):
            try:
                step()
            except DeviceError as error:
                failures.append(error)
        self._networks.clear()
        if failures:
            raise failures[0]

    def _load(
        self,
        onnx: bytes,
        *,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        channels_last: Sequence[str] = (),
        meter: Meter | None,
    ) -> CudaNetwork:
        engine = self._gpu.engine(onnx, outputs=outputs, shapes=shapes, channels_last=channels_last)
        return CudaNetwork(
            self._gpu.libraries.trt,
            engine,
            self.memory,
            name=" ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()),
            graph=self._gpu.graphs,
            notes=self._gpu.notes,
            meter=meter,
        )

    def __repr__(self) -> str:
        return f"CudaDevice({self.name!r}, {self.backend}, {self.precision})"
