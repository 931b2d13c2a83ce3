"""Grades against the cut-offs of docs/report.md, written out in whole per cent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.grade import DEFAULT, cut_offs, grade
from rbc_engine.pack import Pack, find_pack

# Type: whole per cent that are grade 1, 2 and 3.
WHOLE_PER_CENT = {
    **dict.fromkeys(("macrocyte", "microcyte", "hypochromia"), ([], [11, 15, 20], [21, 60, 100])),
    **dict.fromkeys(
        (
            "burr_cell",
            "echinocyte",
            "elliptocyte",
            "ovalocyte",
            "spherocyte",
            "stomatocyte",
            "target_cell",
            "teardrop",
        ),
        ([], [5, 12, 20], [21, 60, 100]),
    ),
    "elongated_sickle": ([], [1, 2], [3, 50, 100]),
    "schistocyte": ([], [1, 2], [3, 50, 100]),
}


@pytest.mark.parametrize("type_name", WHOLE_PER_CENT)
def test_published_grades(type_name):
    assert cut_offs(type_name).published
    for expected, shares in enumerate(WHOLE_PER_CENT[type_name], start=1):
        for per_cent in shares:
            assert grade(per_cent / 100, type_name) == expected
    assert grade(0, type_name) == 0


def test_only_schistocytes_are_few():
    assert grade(1 / 5000, "schistocyte") == 1
    assert grade(0.0099, "schistocyte") == 1
    assert grade(0.0099, "elongated_sickle") == 0
    assert grade(0.1099, "macrocyte") == 0


@given(st.integers(1, 10_000), st.data())
def test_cut_offs_hold_for_counts(cells, data):
    """A share made from counts falls where the counts do, compared in whole numbers."""
    count = data.draw(st.integers(0, cells))
    expected = 3 if 100 * count > 20 * cells else 2 if 100 * count >= 11 * cells else 0
    assert grade(count / cells, "microcyte") == expected


def test_types_without_published_cut_offs_have_the_stated_default():
    assert cut_offs("granular") is DEFAULT
    assert not DEFAULT.published
    assert [grade(share, "granular") for share in (0, 0.049, 0.05, 0.2, 0.201)] == [0, 0, 2, 2, 3]


def test_every_abnormal_type_of_the_shipped_pack_is_published():
    pack = Pack.open(find_pack("chula12"))
    assert all(cut_offs(name).published for name in pack.manifest.abnormal)


@pytest.mark.parametrize("fraction", [-0.01, 1.01, float("nan")])
def test_what_is_no_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        grade(fraction, "macrocyte")
