"""An array in the memory of a GPU, as far as the stages need one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rbc_engine.devices.cuda.memory import LaneMemory

__all__ = ["CudaArray"]


class CudaArray:
    """C-contiguous, in the memory of one lane: what is done with it happens in the order of that lane's stream.

    address: of its first byte, in device memory.
    stable: results of this kind come at the same address every time, so that a network may read them in place.
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
    def device_id(self) -> int:
        return self.memory.device_id

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> CudaArray:
        """The rows of a slice, in the same memory."""
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
        """Copies an array of the same shape and type into the rows of a slice, or sets them to 0."""
        into = self[rows]
        if not isinstance(value, CudaArray):
            if value != 0:
                raise ValueError(f"a CudaArray takes another one, or 0 (got {value!r})")
            self.memory.zero(into)
        else:
            self.memory.copy(value, into)

    def __repr__(self) -> str:
        return f"CudaArray({self.dtype} {list(self.shape)} on cuda:{self.device_id})"
