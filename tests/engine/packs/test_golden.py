"""golden.npz: reads what it writes, refuses hostile files, and names each kind of difference."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbc_engine.errors import PackError
from rbc_engine.packs.golden import ExpectedRegions, GoldenCase, compare, encode_golden, read_golden
from rbc_engine.types.regions import Regions

ARRAYS = ("boxes", "scores", "probabilities", "abnormal_p")


def make_case(*, seed: int = 0, regions: int = 4, types: int = 3) -> GoldenCase:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 60, (regions, 2, 2)), axis=1).reshape(regions, 4)
    return GoldenCase(
        frame=rng.integers(0, 256, (48 + seed, 64, 3)).astype(np.uint8),
        expected=ExpectedRegions(
            boxes=corners.astype(np.float32),
            scores=rng.uniform(0.5, 1, regions).astype(np.float32),
            probabilities=rng.random((regions, types), np.float32),
            abnormal_p=rng.random(regions, np.float32),
        ),
    )


def answer(expected: ExpectedRegions, order=None, **changed) -> Regions:
    """What an engine gives that finds just this, or this with some arrays changed."""
    arrays = {name: getattr(expected, name).copy() for name in ARRAYS} | changed
    order = np.arange(len(arrays["boxes"])) if order is None else order
    arrays = {name: array[order].astype(np.float32) for name, array in arrays.items()}
    return Regions.by_area(
        **arrays,
        has=arrays["probabilities"] >= 0.5,
        abnormal=arrays["abnormal_p"] >= 0.5,
        flags=np.zeros(len(order), np.uint8),
    )


def archive(arrays: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in arrays.items():
            out.writestr(name, content)
    return file.getvalue()


def contents(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        return {name: source.read(name) for name in source.namelist()}


def saved(array, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_written_is_read(count: int):
    cases = [make_case(seed=seed, regions=2 * seed) for seed in range(count)]
    data = encode_golden(cases)
    assert data == encode_golden(cases), "no time of day in it"
    read = read_golden(data)
    assert len(read) == count
    for case, again in zip(cases, read, strict=True):
        np.testing.assert_array_equal(again.frame, case.frame)
        for name in ARRAYS:
            got, expected = getattr(again.expected, name), getattr(case.expected, name)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, expected)
    assert np.load(io.BytesIO(data), allow_pickle=False).keys() == {
        f"{name}_{index}" for name in ("frame", *ARRAYS, "kinds") for index in range(count)
    }


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


GOOD = contents(encode_golden([make_case()]))
HEADER_OF_A_TERABYTE = saved(np.zeros((4, 4), np.float32)).replace(
    b"(4, 4), }" + 12 * b" ", b"(250000000, 1000), }" + b" "
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores_0.npy": saved(np.array([Bomb()] * 4, object))}, "does not begin like an array"),
        ({"boxes_0.npy": HEADER_OF_A_TERABYTE}, "as long as its shape says"),
        ({"boxes_0.npy": saved(np.zeros((4, 4), np.float64))}, "must be float32"),
        ({"boxes_0.npy": saved(np.zeros((4, 4), ">f4"))}, "does not begin like an array"),
        ({"boxes_0.npy": saved(np.asfortranarray(np.ones((4, 4), np.float32)))}, "does not begin"),
        ({"boxes_0.npy": GOOD["boxes_0.npy"][:-4]}, "as long as its shape says"),
        ({"boxes_0.npy": saved(np.zeros((3, 4), np.float32))}, "do not fit together"),
        ({"boxes_0.npy": saved(np.full((4, 4), np.nan, np.float32))}, "not finite"),
        ({"scores_0.npy": saved(np.float32(1))}, "does not begin like an array"),
        ({"frame_0.npy": saved(np.zeros((8, 8), np.uint8))}, "do not fit together"),
        ({"frame_0.npy": saved(np.zeros((0, 8, 3), np.uint8))}, "do not fit together"),
        ({"more.npy": saved(np.zeros(3))}, "nothing else"),
        ({"../scores_0.npy": saved(np.zeros(3))}, "nothing else"),
    ],
)
def test_hostile_arrays_are_refused(changes: dict[str, bytes], message: str):
    with pytest.raises(PackError, match=message):
        read_golden(archive(GOOD | changes))


def test_a_small_file_that_unpacks_to_gigabytes_is_refused():
    bomb = archive(GOOD | {"frame_0.npy": bytes(2**27)})
    assert len(bomb) < 2**20
    # A directory that understates a size: the archive itself notices.
    liar = bomb.replace((2**27).to_bytes(4, "little"), (2**20).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        with pytest.raises(PackError, match="unpacks to 1342"):
            read_golden(bomb)
        with pytest.raises(PackError):
            read_golden(liar)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_is_refused(compression: int):
    with pytest.raises(PackError, match="not compressed with deflate"):
        read_golden(archive(GOOD, compression))


def test_too_many_cases_are_refused():
    with pytest.raises(PackError, match="at most 16 cases"):
        read_golden(encode_golden([make_case(seed=seed) for seed in range(17)]))


SMALL = encode_golden([make_case(regions=1)])


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255), st.integers(0, len(SMALL)))
def test_damage_is_refused_or_does_no_harm(position: int, flip: int, length: int):
    data = bytearray(SMALL)
    data[position] ^= flip
    for damaged in (bytes(data), SMALL[:length] if length < len(SMALL) else b""):
        try:
            read = read_golden(damaged)
        except PackError:
            continue
        # The byte was one of those that mean nothing, such as a date.
        np.testing.assert_array_equal(read[0].frame, make_case(regions=1).frame)


@given(st.integers(0, 2**31), st.permutations(range(4)))
def test_the_same_regions_in_any_order_agree(seed: int, order: list[int]):
    expected = make_case(seed=seed % 100).expected
    assert compare(expected, answer(expected, np.array(order))) == []


def test_no_regions_agree_with_none():
    expected = make_case(regions=0).expected
    assert compare(expected, answer(expected)) == []


def change(name: str, by: float, *, row: int = 1):
    expected = make_case().expected
    array = getattr(expected, name).copy()
    array[row] += by
    return expected, answer(expected, **{name: array})


@pytest.mark.parametrize(
    ("name", "allowed", "gap", "message"),
    [
        ("boxes", 0.4, 0.6, "is not found"),
        ("scores", -0.015, -0.025, "score differs by 0.025, more than 0.02"),
        ("probabilities", 0.015, 0.025, "a probability differs by 0.025, more than 0.02"),
        ("abnormal_p", 0.09, 0.12, "abnormal_p differs by 0.12, more than 0.1"),
    ],
)
def test_each_difference_is_reported(name: str, allowed: float, gap: float, message: str):
    assert compare(*change(name, allowed)) == []
    assert compare(*change(name, -allowed)) == []
    differences = compare(*change(name, gap))
    assert message in differences[0]
    assert len(differences) == (2 if name == "boxes" else 1), "a moved box is a lost and a new one"


def test_nan_is_a_difference():
    assert "differs by nan" in compare(*change("probabilities", np.nan))[0]


def test_lost_and_new_regions_are_reported_unless_hardly_any():
    expected = make_case(regions=5).expected
    fewer = answer(expected, np.array([0, 1, 2, 4]))
    assert ["is not found" in line for line in compare(expected, fewer)] == [True]
    part = ExpectedRegions(**{name: getattr(expected, name)[[0, 1, 2, 4]] for name in ARRAYS})
    assert ["but not expected" in line for line in compare(part, answer(expected))] == [True]
    near = float(expected.scores[3]) - 0.01
    assert compare(expected, fewer, score_threshold=near) == []
    assert compare(part, answer(expected), score_threshold=near) == []


def test_a_region_found_twice_is_reported():
    expected = make_case().expected
    twice = answer(expected, np.array([0, 1, 1, 2, 3]))
    assert ["but not expected" in line for line in compare(expected, twice)] == [True]


def test_a_failed_field_and_other_types_are_reported():
    expected = make_case().expected
    assert compare(expected, None) == ["the field failed"]
    assert compare(expected, answer(make_case(types=5).expected)) == ["5 types instead of 3"]
