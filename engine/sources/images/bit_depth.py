"""Samples of 8 to 16 bits to 8, whatever depth the camera had.

Cameras have 10, 12 or 14 bits, and many programs store their values in 16 without scaling. A field
is then nearly black. How many bits were used is told by the file's tags, else by the values: all
but a few (hot pixels) fit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rbc_engine.types.arrays import UInt8

__all__ = ["to_8_bits"]

_DEPTHS = (8, 10, 12, 14)
_HOT_SHARE = 1e-3
"""Of all samples. Of a smear in bright field, most are background, which is bright."""


def to_8_bits(
    samples: npt.NDArray[np.unsignedinteger], *, stated_bits: int | None = None
) -> tuple[UInt8, list[str]]:
    """Return samples scaled by their full range, and what was assumed for it.

    samples: uint8 or uint16, of any shape. stated_bits: how many bits of them are used, if the file
    says so.
    """
    stored = 8 * samples.dtype.itemsize
    if stated_bits is not None and 1 < stated_bits < stored:
        return _scaled(samples, stated_bits), []
    if samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False), []
    bits = _used_bits(samples)
    if bits == stored:
        return _scaled(samples, bits), []
    note = (
        f"16-bit values that use {bits} bits, taken as those of a {bits}-bit camera: brightest is "
        f"{2**bits - 1}"
    )
    return _scaled(samples, bits), [note]


def _used_bits(samples: npt.NDArray[np.unsignedinteger]) -> int:
    most = int(_HOT_SHARE * samples.size)
    for bits in reversed(_DEPTHS):
        if np.count_nonzero(samples >= 2**bits) > most:
            return next((deeper for deeper in _DEPTHS if deeper > bits), 16)
    return _DEPTHS[0]


def _scaled(samples: npt.NDArray[np.unsignedinteger], bits: int) -> UInt8:
    most = 2**bits - 1
    levels = np.minimum(np.arange(2 ** (8 * samples.dtype.itemsize)), most)
    scaled: UInt8 = ((levels * 255 + most // 2) // most).astype(np.uint8)[samples]
    return scaled
