"""Pixels of no field: whatever is read from another place than asked for is different."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def noise():
    """uint8 [700, 900, 3]. Not to be written to."""
    pixels = np.random.default_rng(3).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    return pixels
