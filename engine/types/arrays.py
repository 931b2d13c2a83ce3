"""Name the types of the arrays that travel along the path."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Float32", "Int32", "UInt8"]

UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
