"""The mutator finds what it is for, and every reader withstands it for a moment."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from rbc_engine.errors import ImageError

from . import mutate
from .readers import READERS, Reader


def reader_that(do) -> Reader:
    def read(data, folder):
        if data != b"0123456789":
            do()

    return Reader(seeds=lambda folder: [b"0123456789"], read=read)


def crash():
    os.kill(os.getpid(), 11)


def hang():
    time.sleep(60)


def grow():
    np.ones(80 << 20, np.uint8)


def fail():
    raise KeyError("surprise")


def refuse():
    raise ImageError("damaged")


@pytest.mark.parametrize(
    ("do", "says"), [(crash, "exit code -11"), (hang, "hang"), (grow, "memory"), (fail, "KeyError")]
)
def test_every_kind_of_fault_is_found(monkeypatch, do, says):
    monkeypatch.setattr(mutate, "HANG_S", 0.5)
    monkeypatch.setattr(mutate, "MOST_BYTES", 50 << 20)
    counts, faults = mutate.hunt(reader_that(do), seconds=0.3, most_faults=2)
    assert faults
    assert says in faults[0]["what"]
    assert counts["mutants"] >= 1


def test_a_refusal_is_no_fault():
    counts, faults = mutate.hunt(reader_that(refuse), seconds=0.3)
    assert not faults
    assert counts["mutants"] > 10


@pytest.mark.parametrize("name", READERS)
def test_readers_withstand_damage(name):
    counts, faults = mutate.hunt(READERS[name], seconds=0.7, seed=1)
    assert not faults, faults[0]["what"]
    assert counts["mutants"]
