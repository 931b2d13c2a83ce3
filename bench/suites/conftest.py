"""Run everything on one thread, engine and libraries: to compare the work, not the number of
cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.arrays import UInt8


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


@pytest.fixture(scope="session")
def pack() -> Pack:
    """Open RBC_PACK, or the shipped pack."""
    return Pack.open(find_pack(os.environ.get("RBC_PACK", "chula12")))


@pytest.fixture(scope="session")
def frame() -> UInt8:
    """Return a rendered frame, uint8 [960, 1280, 3]."""
    return render_field(seed=1, width=1280, height=960, cells=60).pixels


@pytest.fixture(scope="session")
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
