"""Regions and their cells: taken, put together and moved, against lists of them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.types.cells import Cells, rows_of_groups
from rbc_engine.types.ends import Ended
from rbc_engine.types.kinds import KIND_LABELS, Kind
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldFlag, FieldResult

ARRAYS = [name for name in Regions.__dataclass_fields__ if name != "cells"]


@st.composite
def some_regions(draw, types=2):
    """Regions of no, one or several cells; every number in them is another one."""
    cells_of = np.array(draw(st.lists(st.integers(0, 4), max_size=8)), np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, region = len(cells_of), np.repeat(np.arange(len(cells_of)), cells_of)
    return Regions(
        boxes=rng.random((count, 4), np.float32),
        scores=rng.random(count, np.float32),
        kinds=rng.integers(0, 4, count, np.uint8),
        probabilities=rng.random((count, types), np.float32),
        has=rng.random((count, types)) < 0.5,
        abnormal_p=rng.random(count, np.float32),
        abnormal=rng.random(count) < 0.5,
        flags=rng.integers(0, 16, count, np.uint8),
        cells_low=np.ones(count, np.int32),
        cells_high=np.maximum(cells_of, 1).astype(np.int32),
        cells=Cells.in_order(
            boxes=rng.random((len(region), 4), np.float32),
            scores=rng.random(len(region), np.float32),
            kinds=rng.integers(0, 4, len(region), np.uint8),
            region=region,
        ),
    )


def listed(regions):
    """Each region as a list of all that is known of it, its cells with it."""
    return [
        [getattr(regions, name)[row].tolist() for name in ARRAYS]
        + [
            [getattr(regions.cells, name)[at].tolist() for name in ("boxes", "scores", "kinds")]
            for at in np.flatnonzero(regions.cells.region == row)
        ]
        for row in range(len(regions))
    ]


@given(some_regions(), st.data())
def test_taking_is_taking_from_a_list(regions, data):
    everything = listed(regions)
    rows = data.draw(st.lists(st.integers(0, max(len(regions) - 1, 0)), max_size=8))
    rows = rows if len(regions) else []
    assert listed(regions.take(np.array(rows, np.intp))) == [everything[row] for row in rows]
    mask = np.isin(np.arange(len(regions)), rows)
    assert listed(regions.take(mask)) == [everything[row] for row in np.flatnonzero(mask)]
    assert listed(regions.take(slice(1, 4))) == everything[1:4]


@given(st.lists(some_regions(), min_size=1, max_size=4))
def test_putting_together_is_adding_lists(parts):
    together = Regions.concatenate(parts)
    assert listed(together) == [one for part in parts for one in listed(part)]
    begin = 0
    for part in parts:
        assert listed(together.take(slice(begin, begin + len(part)))) == listed(part)
        begin += len(part)


@given(some_regions())
def test_moving_moves_all_boxes(regions):
    moved = regions.shifted(3, 5)
    for one, other in ((regions, moved), (regions.cells, moved.cells)):
        np.testing.assert_array_equal(other.boxes, one.boxes + np.float32([3, 5, 3, 5]))
    assert Regions.concatenate([Regions.empty(2), regions]).cells.region.dtype == np.int32


@given(st.lists(st.integers(0, 5), max_size=10), st.data())
def test_rows_of_groups_are_those_of_lists(counts, data):
    groups, row = [], 0
    for count in counts:
        groups.append(list(range(row, row + count)))
        row += count
    chosen = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=10)) if counts else []
    got = rows_of_groups(np.array(counts, np.int64), np.array(chosen, np.intp))
    assert got.tolist() == [row for group in chosen for row in groups[group]]


def test_what_does_not_fit_together_is_refused():
    regions = Regions.empty(2)
    with pytest.raises(ValueError, match=r"Regions.kinds must be uint8 \[0\] \(got int64 \[0\]\)"):
        replace(regions, kinds=np.zeros(0, np.int64))
    with pytest.raises(ValueError, match=r"Cells.region must be int32"):
        replace(regions.cells, region=np.zeros(1, np.int32))
    one = Cells(
        boxes=np.zeros((1, 4), np.float32), scores=np.ones(1, np.float32),
        kinds=np.zeros(1, np.uint8), region=np.zeros(1, np.int32),
    )  # fmt: skip
    with pytest.raises(ValueError, match="cells must be in order of their regions"):
        replace(regions, cells=one)


def test_regions_by_area_have_a_cell_where_they_hold_one():
    sizes = [(30, 30)] * 9 + [(60, 60), (58, 30), (30, 30)]
    boxes = np.array([(40 * i, 0, 40 * i + w, h) for i, (w, h) in enumerate(sizes)], np.float32)
    count, kinds = len(sizes), np.zeros(len(sizes), np.uint8)
    kinds[9] = Kind.WHITE_CELL
    regions = Regions.by_area(
        boxes=boxes, scores=np.ones(count, np.float32), kinds=kinds,
        probabilities=np.zeros((count, 1), np.float32), has=np.zeros((count, 1), np.bool_),
        abnormal_p=np.zeros(count, np.float32), abnormal=np.zeros(count, np.bool_),
        flags=np.zeros(count, np.uint8),
    )  # fmt: skip
    assert regions.cells.region.tolist() == [*range(10), 11]
    assert (regions.cells_low[9], regions.cells_high[9]) == (1, 1)
    assert regions.cells_high[10] >= 2
    again = regions.recounted()
    assert np.flatnonzero(again.flags & RegionFlag.CLUMP).tolist() == [10]
    assert listed(replace(again, flags=regions.flags)) == listed(regions)


def test_kinds_and_flags_have_names():
    assert KIND_LABELS == ("red", "white_cell", "platelet", "artefact")
    assert [Kind.of(label) for label in KIND_LABELS] == list(Kind)
    assert [kind.label for kind in Kind] == list(KIND_LABELS)
    with pytest.raises(ValueError, match="a kind is one of red, white_cell"):
        Kind.of("RED")
    for bits in range(4):
        assert FieldFlag.of(";".join(FieldFlag(bits).names())) == bits
    with pytest.raises(ValueError, match="'odd' is not known"):
        FieldFlag.of("unfamiliar;odd")


def test_embedding_lists_every_field_of_what_a_session_gives(repository):
    """The tables of docs/embedding.md name every field, and no other."""
    page = (repository / "docs" / "embedding.md").read_text("utf-8")
    for kind in (FieldResult, Regions, Ended):
        table = page.split(f"| `{kind.__name__}` |")[1].split("\n\n")[0]
        first = [line.split("|")[1] for line in table.splitlines()[2:]]
        named = set(re.findall(r"`(\w+)`", " ".join(first)))
        fields = {each.name for each in dataclasses.fields(kind)}
        more = {"ok", "red"} & {name for name in dir(kind) if not name.startswith("_")}
        assert named == fields | more
