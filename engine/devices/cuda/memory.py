"""The memory and the stream of one lane on a GPU, and the arrays in it, through NVIDIA's cuda.core.

Everything a lane does is put on its one stream, so it happens in order; nothing waits but
`download`.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import DeviceError, DeviceMemoryError, RbcError
from rbc_engine.meter import Meter
from rbc_engine.types.frames import Place

__all__ = ["CudaArray", "LaneMemory", "explain_cuda"]

_LEAST_STAGING_BYTES = 1 << 12
# Mistakes of the caller, and what is explained already: not the GPU's doing.
_NOT_CUDA = (RbcError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


@contextmanager
def explain_cuda(what: str) -> Iterator[None]:
    """Turn what CUDA, TensorRT or the kernels raise into a DeviceError that names the step."""
    try:
        yield
    except _NOT_CUDA:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, MemoryError) or "out of memory" in reason.lower().replace("_", " "):
            raise DeviceMemoryError(f"{what}: out of GPU memory") from error
        raise DeviceError(
            f"{what}: {reason}; the GPU cannot be used any more by this process: check nvidia-smi "
            "and start again"
        ) from error


class CudaArray:
    """Hold a C-contiguous array in the memory of one lane.

    What is done with it happens in the order of that lane's stream.

    address: of its first byte, in device memory.
    stable: results of this kind come at the same address every time, so that a network may read
        them in place.
    keeper: whatever must not be freed before this array is.
    """

    __slots__ = ("address", "dtype", "keeper", "memory", "shape", "stable")

    def __init__(
        self,
        memory: LaneMemory,
        address: int,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        *,
        keeper: Any,
        stable: bool = False,
    ) -> None:
        self.memory = memory
        self.address = address
        self.shape = tuple(int(length) for length in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.keeper = keeper
        self.stable = stable

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def place(self) -> Place:
        return self.memory.place

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> CudaArray:
        """Return the rows of a slice, in the same memory."""
        begin, end, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"a slice of a CudaArray must have step 1 (got {step})")
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        return CudaArray(
            self.memory,
            self.address + begin * row_bytes,
            (max(end - begin, 0), *self.shape[1:]),
            self.dtype,
            keeper=self,
        )

    def __setitem__(self, rows: slice, value: CudaArray | int) -> None:
        """Copy an array of the same shape and type into the rows of a slice, or set them to 0."""
        into = self[rows]
        if not isinstance(value, CudaArray):
            if value != 0:
                raise ValueError(f"a CudaArray takes another one, or 0 (got {value!r})")
            self.memory.zero(into)
        else:
            self.memory.copy(value, into)

    def __repr__(self) -> str:
        return f"CudaArray({self.dtype} {list(self.shape)} on {self.place})"


class LaneMemory:
    """Hold a stream and arrays on it, and copy between them and the host.

    core: the module cuda.core. device_id: which GPU; it must be current in the calling thread.
    pool: the cuda.core memory resource that arrays come from.
    """

    def __init__(self, core: Any, device_id: int, pool: Any) -> None:
        self.place = Place("cuda", device_id)
        self._core = core
        self._pool = pool
        with explain_cuda(f"{self.place}: a stream for a lane"):
            # cuda.core's default: a stream of its own that does not wait for the default stream.
            self.stream = core.Device(device_id).create_stream()
        self.stream_handle = int(self.stream.handle)
        self._pinned = core.LegacyPinnedMemoryResource()
        self._staging_free: list[Any] = []
        self._staging_used: list[Any] = []
        self._results: dict[tuple[str, int], Any] = {}
        self._runs: list[tuple[Any, Any, Meter]] = []
        # The thread sleeps while it waits, so that waiting lanes leave the cores to the decoders.
        self._waits = core.EventOptions(timing_enabled=True, blocking_sync=True)
        self._times = core.EventOptions(timing_enabled=True)

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> CudaArray:
        """Return memory with any content, freed with the array."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._allocate(size)
        return CudaArray(self, int(buffer.handle), shape, dtype, keeper=buffer)

    def result(
        self, owner: str, index: int, shape: Sequence[int], dtype: npt.DTypeLike
    ) -> CudaArray:
        """Return memory for result `index` of `owner`: the same at each call, and overwritten."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._results.get((owner, index))
        if buffer is None or buffer.size < size:
            # Half as much again: how many regions a batch has changes from batch to batch.
            buffer = self._allocate(size + size // 2 if buffer is not None else size)
            self._results[owner, index] = buffer
        return CudaArray(self, int(buffer.handle), shape, dtype, keeper=buffer, stable=True)

    def upload(self, array: npt.NDArray[Any]) -> CudaArray:
        """Return a copy of a host array.

        The host array may be changed at once: it was staged in pinned memory.
        """
        into = self.empty(array.shape, array.dtype)
        if into.nbytes:
            staged = self._stage(into.nbytes)
            view = _host_view(staged, into.nbytes)
            np.copyto(view.view(array.dtype).reshape(array.shape), array)
            self._copy(int(staged.handle), into.address, into.nbytes)
        return into

    def adopt(self, pixels: Any) -> CudaArray:
        """Return pixels that another library left in this GPU's memory, by DLPack, without a copy.

        pixels: has `__dlpack__`, whose producer makes this lane's stream wait until they are there.
        """
        with explain_cuda(f"{self.place}: pixels from the decoder"):
            view = self._core.utils.StridedMemoryView.from_dlpack(
                pixels, stream_ptr=self.stream_handle
            )
        shape = tuple(view.shape)
        contiguous = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        if view.strides is not None and tuple(view.strides) != contiguous:
            raise DeviceError(
                f"pixels on {self.place} must be C-contiguous (got strides {view.strides})"
            )
        return CudaArray(self, int(view.ptr), shape, view.dtype, keeper=(view, pixels))

    def copy(self, source: CudaArray, into: CudaArray) -> None:
        if source.shape != into.shape or source.dtype != into.dtype:
            raise ValueError(f"cannot copy {source!r} into {into!r}: shapes and types must agree")
        self._copy(source.address, into.address, into.nbytes)

    def zero(self, array: CudaArray) -> None:
        if array.nbytes:
            with explain_cuda(f"{self.place}: clearing memory"):
                self._view(array.address, array.nbytes).fill(0, stream=self.stream)

    def download(self, *arrays: CudaArray) -> tuple[npt.NDArray[Any], ...]:
        """Wait for everything on the stream, and return copies in ordinary memory."""
        staged = []
        for array in arrays:
            buffer = self._stage(max(array.nbytes, 1))
            if array.nbytes:
                self._copy(array.address, int(buffer.handle), array.nbytes)
            staged.append(buffer)
        self.wait()
        return tuple(
            _host_view(buffer, array.nbytes).view(array.dtype).reshape(array.shape).copy()
            for array, buffer in zip(arrays, staged, strict=True)
        )

    def wait(self) -> None:
        """Wait until the stream is done, and report the networks' times to the meters."""
        with explain_cuda(f"{self.place}"):
            done = self.stream.record(options=self._waits)
            done.sync()
            now = time.perf_counter()
            for begin, end, meter in self._runs:
                ended = now - (done - end) / 1e3
                meter.add_network(ended - (end - begin) / 1e3, ended)
        self._runs.clear()
        # Their copies are done.
        self._staging_free += self._staging_used
        self._staging_used.clear()

    @contextmanager
    def network(self, meter: Meter | None) -> Iterator[None]:
        """Mark what is put on the stream meanwhile as a network, and report its time to `meter`."""
        if meter is None:
            yield
            return
        begin = self.stream.record(options=self._times)
        yield
        self._runs.append((begin, self.stream.record(options=self._times), meter))

    def close(self) -> None:
        """Wait, then free everything. Arrays of this lane must not be used any more."""
        try:
            with explain_cuda(f"{self.place}"):
                self.stream.sync()
        finally:
            self._results.clear()
            self._staging_free.clear()
            self._staging_used.clear()
            self._runs.clear()

    def _allocate(self, size: int) -> Any:
        with explain_cuda(f"{self.place}: {size >> 20} MiB for a lane"):
            return self._pool.allocate(max(size, 1), stream=self.stream)

    def _stage(self, size: int) -> Any:
        """Return pinned host memory that the stream does not use, kept until the next wait ends."""
        fitting = [buffer for buffer in self._staging_free if buffer.size >= size]
        if fitting:
            buffer = min(fitting, key=lambda buffer: int(buffer.size))
            self._staging_free.remove(buffer)
        else:
            rounded = max(_LEAST_STAGING_BYTES, 1 << (size - 1).bit_length())
            with explain_cuda(f"{self.place}: {rounded >> 10} KiB of pinned host memory"):
                buffer = self._pinned.allocate(rounded)
        self._staging_used.append(buffer)
        return buffer

    def _view(self, address: int, size: int) -> Any:
        return self._core.Buffer.from_handle(address, size)

    def _copy(self, source: int, into: int, size: int) -> None:
        if size:
            with explain_cuda(f"{self.place}: copying {size} bytes"):
                self._view(into, size).copy_from(self._view(source, size), stream=self.stream)


def _host_view(buffer: Any, size: int) -> npt.NDArray[np.uint8]:
    """Return the first bytes of pinned memory as an array; valid as long as the buffer is."""
    if not size:
        return np.empty(0, np.uint8)
    view: npt.NDArray[np.uint8] = np.ctypeslib.as_array(
        (ctypes.c_uint8 * size).from_address(int(buffer.handle))
    )
    return view
