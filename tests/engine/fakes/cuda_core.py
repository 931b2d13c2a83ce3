"""cuda.core as far as the engine uses it, without a GPU: device memory is host memory, and a stream
is a list.

Nothing on a stream happens before somebody waits for it, so what is changed or freed too early
shows. Memory that was freed is overwritten. Every address that is used must lie in memory that is
still there.
"""

from __future__ import annotations

import ctypes
import threading
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

_Capability = namedtuple("_Capability", "major minor")
_ALIGNMENT = 256
_POISON = 0xDB


class CUDAError(Exception):
    """As cuda.core raises it."""


class Gpus:
    """The machine: what is allocated, and what is to fail.

    total_bytes: memory of each GPU.
    lost: numbers of GPUs on which everything fails from now on.
    fail_capture: graphs cannot be captured.
    """

    def __init__(self, count: int = 1, total_bytes: int = 1 << 40) -> None:
        self.count = count
        self.total_bytes = total_bytes
        self.lost: set[int] = set()
        self.fail_capture = False
        self.graphs_launched = 0
        self.streams: dict[int, Stream] = {}
        self.blocks: dict[int, tuple[int, int | None, np.ndarray]] = {}
        self.used = [0] * count
        self.current = threading.local()
        self.lock = threading.RLock()

    def allocate(self, size: int, number: int | None) -> int:
        with self.lock:
            if number is not None:
                self.check(number)
                if self.used[number] + size > self.total_bytes:
                    raise CUDAError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it ...")
                self.used[number] += size
            memory = np.full(size + _ALIGNMENT, _POISON, np.uint8)
            address = -(-memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
            self.blocks[address] = (size, number, memory)
            return address

    def free(self, address: int) -> None:
        with self.lock:
            size, number, memory = self.blocks.pop(address)
            memory[:] = _POISON
            if number is not None:
                self.used[number] -= size

    def view(self, address: int, shape, dtype, *, on: int | None = None) -> np.ndarray:
        """Memory as an array; it must lie within one block, on GPU `on` if given."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if not size:
            return np.empty(shape, dtype)
        with self.lock:
            inside = [
                number
                for start, (length, number, _) in self.blocks.items()
                if start <= address and address + size <= start + length
            ]
        assert inside, f"{size} bytes at {address:#x} are not allocated"
        assert on is None or inside[0] == on, f"memory of GPU {inside[0]} is used on GPU {on}"
        raw = np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)
        return raw.view(dtype).reshape(shape)

    def check(self, number: int) -> None:
        """The thread has made this GPU current, and it works."""
        assert getattr(self.current, "number", None) == number, f"GPU {number} is not current here"
        if number in self.lost:
            raise CUDAError("CUDA_ERROR_ILLEGAL_ADDRESS: While executing a kernel, the device ...")


@dataclass
class EventOptions:
    timing_enabled: bool = False
    blocking_sync: bool = False


class Event:
    def __init__(self, stream: Stream, options: EventOptions | None) -> None:
        self._stream = stream
        self._timed = options is not None and options.timing_enabled
        self.time_ms: float | None = None

    def sync(self) -> None:
        self._stream.sync()

    def __sub__(self, other: Event) -> float:
        assert self._timed
        assert other._timed
        assert self.time_ms is not None, "the event has not happened"
        assert other.time_ms is not None, "the event has not happened"
        return self.time_ms - other.time_ms


class Stream:
    def __init__(self, gpus: Gpus, number: int) -> None:
        self.gpus = gpus
        self.number = number
        self.handle = len(gpus.streams) + 3
        self.work: list = []
        self.captured: list | None = None
        self._clock_ms = 0.0
        gpus.streams[self.handle] = self

    def put(self, work) -> None:
        self.gpus.check(self.number)
        (self.work if self.captured is None else self.captured).append(work)

    def sync(self) -> None:
        self.gpus.check(self.number)
        assert self.captured is None, "waiting for a stream that is captured"
        work, self.work = self.work, []
        for step in work:
            step()

    def record(self, event=None, options=None) -> Event:
        made = Event(self, options)

        def happen() -> None:
            self._clock_ms += 1.0
            made.time_ms = self._clock_ms

        self.put(happen)
        return made

    def create_graph_builder(self) -> GraphBuilder:
        return GraphBuilder(self)


class GraphBuilder:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._steps: list = []

    def begin_building(self, mode: str = "relaxed") -> GraphBuilder:
        assert mode in ("global", "thread_local", "relaxed")
        assert not self.stream.work, "capture begins on a stream that was not waited for"
        if self.stream.gpus.fail_capture:
            raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        self.stream.captured = []
        return self

    def end_building(self) -> GraphBuilder:
        self._steps, self.stream.captured = self.stream.captured, None
        return self

    def complete(self) -> Graph:
        return Graph(self.stream.gpus, self._steps)

    def close(self) -> None:
        pass


class Graph:
    def __init__(self, gpus: Gpus, steps: list) -> None:
        assert steps, "an empty graph"
        self._gpus = gpus
        self._steps = steps

    def launch(self, stream: Stream) -> None:
        self._gpus.graphs_launched += 1
        for step in self._steps:
            stream.put(step)

    def close(self) -> None:
        self._steps = []


class Buffer:
    def __init__(
        self, gpus: Gpus, address: int, size: int, stream: Stream | None, owns: bool
    ) -> None:
        self._gpus = gpus
        self.handle = address
        self.size = size
        self._stream = stream
        self._owns = owns

    def copy_from(self, source: Buffer, *, stream: Stream) -> None:
        assert source.size == self.size
        into, out_of, size = self.handle, source.handle, self.size
        gpus = self._gpus
        gpus.view(into, (size,), np.uint8), gpus.view(out_of, (size,), np.uint8)
        stream.put(
            lambda: np.copyto(
                gpus.view(into, (size,), np.uint8), gpus.view(out_of, (size,), np.uint8)
            )
        )

    def fill(self, value: int, *, stream: Stream) -> None:
        address, size, gpus = self.handle, self.size, self._gpus
        stream.put(lambda: gpus.view(address, (size,), np.uint8).fill(value))

    def __del__(self) -> None:
        if not self._owns:
            return
        if self._stream is None:
            self._gpus.free(self.handle)
        else:  # in the order of the stream
            address = self.handle
            self._stream.work.append(lambda: self._gpus.free(address))


def make_core(gpus: Gpus) -> SimpleNamespace:
    """The module, for these GPUs."""

    class Pool:
        def __init__(self, number: int) -> None:
            self.number = number

        def allocate(self, size: int, *, stream: Stream) -> Buffer:
            assert stream.number == self.number
            assert stream.captured is None
            return Buffer(gpus, gpus.allocate(size, self.number), size, stream, True)

    class Device:
        def __init__(self, number: int) -> None:
            assert number < gpus.count
            self.number = number
            self.name = f"Fake GPU {number}"
            self.compute_capability = _Capability(8, 9)
            self.memory_resource = Pool(number)

        def set_current(self) -> None:
            gpus.current.number = self.number

        def create_stream(self) -> Stream:
            gpus.check(self.number)
            return Stream(gpus, self.number)

    class LegacyPinnedMemoryResource:
        def allocate(self, size: int, *, stream=None) -> Buffer:
            return Buffer(gpus, gpus.allocate(size, None), size, None, True)

    class StridedMemoryView:
        @staticmethod
        def from_dlpack(pixels, stream_ptr: int):
            assert stream_ptr in gpus.streams
            return pixels.__dlpack__(stream=stream_ptr)

    def from_handle(address: int, size: int) -> Buffer:
        return Buffer(gpus, address, size, None, False)

    return SimpleNamespace(
        Device=Device,
        LegacyPinnedMemoryResource=LegacyPinnedMemoryResource,
        EventOptions=EventOptions,
        Buffer=SimpleNamespace(from_handle=from_handle),
        utils=SimpleNamespace(StridedMemoryView=StridedMemoryView),
    )


def make_driver(gpus: Gpus) -> SimpleNamespace:
    """cuda.bindings.driver."""

    def mem_get_info() -> tuple[int, int, int]:
        used = gpus.used[gpus.current.number]
        return 0, gpus.total_bytes - used, gpus.total_bytes

    return SimpleNamespace(cuMemGetInfo=mem_get_info)
