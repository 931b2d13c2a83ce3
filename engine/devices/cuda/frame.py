"""A frame that a camera's library left in the memory of a GPU: it is read where it lies."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbc_engine.errors import ImageError
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import Place

__all__ = ["CudaFrame"]


class CudaFrame:
    """Hold pixels that a lane on the same GPU reads without a copy; see types.frames.Frame.pixels.

    array: has `__dlpack__` and `__cuda_array_interface__`, as arrays of CuPy, PyTorch and Numba do:
        uint8 [H, W, 3], RGB, C-contiguous. It must not change until its frame has ended. Its
        producer's work is waited for.

    Raises ImageError for another type or layout, which only a copy could mend.
    """

    ndim = 3

    def __init__(self, array: Any) -> None:
        try:
            interface = array.__cuda_array_interface__
            shape = tuple(int(length) for length in interface["shape"])
            kind, strides = str(interface["typestr"]), interface.get("strides")
            self._address = int(interface["data"][0])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ImageError(
                "a frame in the memory of a GPU must have __cuda_array_interface__ (got "
                f"{type(array).__name__}): pass a CuPy, PyTorch or Numba array, or a copy in host "
                "memory"
            ) from error
        contiguous = strides is None or tuple(strides) == (3 * shape[1], 3, 1)
        if kind != "|u1" or len(shape) != 3 or shape[2] != 3 or not contiguous:
            raise ImageError(
                "a frame in the memory of a GPU must be uint8 [H, W, 3] RGB and C-contiguous (got "
                f"{kind} {list(shape)}, strides {strides}); convert it there, or pass a copy in "
                "host memory"
            )
        self._array = array
        self.place = Place("cuda", int(array.__dlpack_device__()[1]))
        self.shape = shape
        self.dtype = np.dtype(np.uint8)

    def to_host(self) -> UInt8:
        """Return a copy on the host, after all work of the GPU so far."""
        from cuda.bindings import driver

        pixels: UInt8 = np.empty(self.shape, np.uint8)
        for status, *_ in (
            driver.cuCtxSynchronize(),
            driver.cuMemcpyDtoH(pixels.ctypes.data, self._address, pixels.nbytes),
        ):
            if int(status):
                raise ImageError(f"the frame on {self.place} is lost ({status})")
        return pixels

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()
