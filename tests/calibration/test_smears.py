"""Fields to calibrate with: every smear, and what looks otherwise first."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rbc_engine.calibration.smears import FEWEST_FIELDS, choose_fields
from rbc_engine.errors import UsageError


@pytest.fixture(scope="module")
def smears(tmp_path_factory):
    """Three smears of ten alike fields; in each one field is darker than all."""
    folder = tmp_path_factory.mktemp("smears")
    found = {}
    for smear, level in {"a": 200, "b": 180, "c": 160}.items():
        found[smear] = []
        for index in range(10):
            pixels = np.full((40, 50, 3), 40 if index == 7 else level + index % 3, np.uint8)
            path = folder / f"{smear}{index}.png"
            Image.fromarray(pixels).save(path)
            found[smear].append(path)
    return found


def test_every_smear_is_taken_in_turn(smears) -> None:
    taken = choose_fields(smears, count=9)
    assert sorted(path.name[0] for path in taken) == list("aaabbbccc")
    assert len(set(taken)) == 9


def test_what_looks_otherwise_comes_first(smears) -> None:
    taken = [path.name for path in choose_fields(smears, count=8)]
    assert any(name[1] == "7" for name in taken[:4])


def test_all_are_taken_where_there_are_few(smears) -> None:
    assert len(choose_fields(smears, count=100)) == 30


def test_too_few_are_refused(smears) -> None:
    few = {"a": smears["a"][: FEWEST_FIELDS - 1]}
    with pytest.raises(UsageError, match=rf"at least {FEWEST_FIELDS} fields \(got 7"):
        choose_fields(few, count=48)
    with pytest.raises(UsageError, match=r"--fields 3"):
        choose_fields(smears, count=3)
