"""Grades against the cut-offs of docs/report.md, written out in whole per cent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.stats.counts import SlideCounts
from rbc_engine.stats.grade import DEFAULT, Grades, cut_offs, grade, type_shares
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

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


TYPES = ("normal", "schistocyte", "target_cell")
Row = tuple[set[str], bool]


def field_of(rows: list[Row]) -> FieldResult:
    """Regions by the types that each holds, and whether the border cuts it."""
    count = len(rows)
    has = np.array([[name in held for name in TYPES] for held, _ in rows], bool).reshape(-1, 3)
    regions = Regions.by_area(
        boxes=np.tile(np.array([0, 0, 30, 30], np.float32), (count, 1)),
        scores=np.ones(count, np.float32),
        probabilities=has.astype(np.float32),
        has=has,
        abnormal_p=np.zeros(count, np.float32),
        abnormal=np.zeros(count, bool),
        flags=np.array([6 | cut for _, cut in rows], np.uint8),
    )
    return FieldResult(slide="s", field="f", regions=regions)


row = st.tuples(st.sets(st.sampled_from(TYPES)), st.booleans())


@given(st.lists(st.lists(row, max_size=30), max_size=4))
def test_shares_and_grades_are_of_the_regions_that_no_border_cuts(fields: list[list[Row]]):
    counts = SlideCounts(slide="s")
    for rows in fields:
        counts.add(field_of(rows))
    counts.add(FieldResult(slide="s", field="bad", error="damaged"))
    shares = type_shares(counts, TYPES, abnormal=TYPES[1:])
    kept = [held for rows in fields for held, cut in rows if not cut]
    if not kept:
        assert shares == [None] * 3
        return
    for name, found in zip(TYPES, shares, strict=True):
        holding = sum(name in held for held in kept)
        low, high = binomtest(holding, len(kept)).proportion_ci(method="wilson")
        assert found.count == holding
        assert found.share == holding / len(kept)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
        if name == "normal":
            assert found.grades is None
        else:
            expected = Grades(*(grade(at, name) for at in (found.share, found.low, found.high)))
            assert found.grades == expected


def test_a_cut_cell_makes_no_schistocyte():
    """ICSH: any schistocyte is 1+, so that one cut by the border would already grade the slide."""
    counts = SlideCounts(slide="s")
    counts.add(field_of([({"schistocyte"}, True), *[({"normal"}, False)] * 200]))
    assert type_shares(counts, TYPES, abnormal=TYPES[1:])[1].grades.grade == 0
    counts.add(field_of([({"schistocyte"}, False)]))
    assert type_shares(counts, TYPES, abnormal=TYPES[1:])[1].grades.grade == 1
