"""Outputs start out as garbage, so that an op which forgets to write a value is found out."""

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True, scope="module")
def _garbage_in_new_arrays() -> Iterator[None]:
    empty = np.empty

    def garbage(*args, **options):
        array = empty(*args, **options)
        if array.dtype.kind in "fiub":
            array.fill(91)
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "empty", garbage)
        yield
