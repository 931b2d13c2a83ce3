"""Find the frames for which a network gave numbers that nothing can be made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["all_finite", "outside_unit", "without_numbers"]

_HALF_EXPONENT = np.uint16(0x7C00)


def all_finite(array: npt.NDArray[Any]) -> bool:
    """Return whether every number of a float array is finite."""
    if not array.size:
        return True
    if array.dtype == np.float16:  # numpy compares halves one by one
        bits = np.ascontiguousarray(array).view(np.uint16) & _HALF_EXPONENT
        return bool(bits.max() < _HALF_EXPONENT)
    # A NaN is the smallest and the largest of any array that holds one.
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def without_numbers(outputs: Mapping[str, npt.NDArray[Any]], *, frames: int) -> list[str | None]:
    """Return for each of so many frames what is wrong with the detector's outputs; None if nothing.

    outputs: by name; equally many rows of each belong to every frame.
    """
    wrong: list[str | None] = [None] * frames
    for name, array in outputs.items():
        if all_finite(array):
            continue
        for index, part in enumerate(array.reshape(frames, -1)):
            if wrong[index] is None and not all_finite(part):
                wrong[index] = _refused(f"{name} of the detector has numbers that are not finite")
    return wrong


def outside_unit(name: str, values: npt.NDArray[Any]) -> str | None:
    """Return what is wrong with probabilities that must be finite and within 0..1; None if nothing.

    name: what they are.
    """
    if not values.size:
        return None
    low, high = values.min(), values.max()
    if low >= 0 and high <= 1:  # false for a NaN
        return None
    odd = values[~((values >= 0) & (values <= 1))].flat[0]
    return _refused(f"{name} must be within 0..1 (got {odd:g})")


def _refused(what: str) -> str:
    return (
        f"{what}: nothing of this field can be trusted; try --precision fp32, and if that does not "
        f"help, use another pack"
    )
