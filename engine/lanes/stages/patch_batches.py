"""Split items into batches of a few fixed sizes."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["split_batches"]


def split_batches(count: int, sizes: Sequence[int]) -> list[int]:
    """Return batch sizes that hold `count` items: the largest as often as it is filled, then the
    smallest that fits.

    sizes: the sizes there are, ascending.
    """
    batches = [sizes[-1]] * (count // sizes[-1])
    rest = count % sizes[-1]
    while rest:
        fitting = [size for size in sizes if size >= rest]
        filled = [size for size in sizes if size <= rest]
        # A batch more than a quarter empty is cut once more, if a smaller one can be filled.
        if filled and fitting[0] * 3 > rest * 4:
            batches.append(filled[-1])
            rest -= filled[-1]
        else:
            batches.append(fitting[0])
            rest = 0
    return batches
