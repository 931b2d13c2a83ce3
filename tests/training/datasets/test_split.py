"""The split, on data sets of any make-up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.split import split_by_group, split_fields

TYPES = ("a", "b", "c")


def field(index: int, group: str, kinds: list[int]) -> LabelledField:
    types = np.zeros((len(kinds), len(TYPES)), bool)
    types[np.arange(len(kinds)), kinds] = True
    return LabelledField(
        path=Path(f"{index}.jpg"),
        group=group,
        boxes=np.zeros((len(kinds), 4), np.float32),
        types=types,
        cells=np.ones(len(kinds), np.int64),
        centres=np.zeros((len(kinds), 2), np.float32),
        known=np.ones(len(kinds), bool),
        labelled=bool(kinds),
    )


def dataset(rows: list[tuple[str, list[int]]]) -> Dataset:
    fields = tuple(field(index, group, kinds) for index, (group, kinds) in enumerate(rows))
    return Dataset(name="any", types=TYPES, abnormal=TYPES[1:], fields=fields)


rows = st.lists(
    st.tuples(st.sampled_from("pqrstuvw"), st.lists(st.integers(0, 2), max_size=6)),
    min_size=1,
    max_size=25,
)


@given(rows, st.floats(0.05, 0.9), st.integers(0, 2**31))
def test_no_smear_on_both_sides_and_no_field_lost(rows, share, seed):
    data = dataset(rows)
    train, held_out = split_by_group(data, validation_share=share, seed=seed)
    assert not {f.group for f in train} & {f.group for f in held_out}
    assert sorted(f.path for f in [*train, *held_out]) == sorted(f.path for f in data.fields)


@given(rows, st.integers(0, 2**31), st.sets(st.tuples(*[st.sampled_from("pqrstuvw")] * 2)))
def test_smears_with_common_images_are_never_on_both_sides(rows, seed, pairs):
    data = dataset(rows)
    free = split_by_group(data, validation_share=0.4, seed=seed)
    tied = split_by_group(replace(data, same_smear=tuple(pairs)), validation_share=0.4, seed=seed)
    assert tied[0] == free[0]
    trained_on, held_out_groups = ({f.group for f in side} for side in tied)
    assert not any({a, b} & held_out_groups and {a, b} & trained_on for a, b in pairs if a != b)
    untouched = {f.group for f in free[1]} - {group for pair in pairs for group in pair}
    assert untouched <= held_out_groups


@given(rows, st.integers(0, 2**31), st.randoms())
def test_the_same_seed_gives_the_same_split_in_any_order(rows, seed, random):
    data = dataset(rows)
    shuffled = list(data.fields)
    random.shuffle(shuffled)
    again = Dataset(name="any", types=TYPES, abnormal=TYPES[1:], fields=tuple(shuffled))
    first = {f.group for f in split_by_group(data, validation_share=0.3, seed=seed)[1]}
    second = {f.group for f in split_by_group(again, validation_share=0.3, seed=seed)[1]}
    assert first == second


def test_every_type_gets_its_share():
    """Sixty smears of one type each: each side shows every type, near the share that was asked
    for.
    """
    data = dataset([(f"g{index:02}", [index % 3] * 5) for index in range(60)])
    train, held_out = split_by_group(data, validation_share=0.25, seed=1)
    counts = np.stack([sum(f.types.sum(axis=0) for f in side) for side in (train, held_out)])
    shares = counts[1] / counts.sum(axis=0)
    assert (np.abs(shares - 0.25) <= 0.1).all(), shares


@given(rows, st.integers(0, 2**32), st.floats(0, 0.9))
def test_images_are_dealt_from_all_smears_or_from_those_that_the_other_split_holds_out(
    rows, seed, share
):
    data = dataset(rows)
    _, unseen = split_fields(data, split="smears", validation_share=share, seed=seed)
    for split, candidates in (("images", data.fields), ("images-of-held-out", unseen)):
        train, held_out = split_fields(data, split=split, validation_share=share, seed=seed)
        assert sorted(f.path for f in [*train, *held_out]) == sorted(f.path for f in data.fields)
        labelled = {f.path for f in candidates if f.labelled}
        assert {f.path for f in held_out} <= labelled
        assert len(held_out) == round(share * len(labelled))
        assert split_fields(data, split=split, validation_share=share, seed=seed) == (
            train,
            held_out,
        )
