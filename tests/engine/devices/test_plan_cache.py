"""The cache of compiled networks: what is not whole and for just this machine is not used, and it is said why."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from rbc_engine.devices.cuda.plan_cache import PlanCache, PlanKey, cache_folder
from rbc_engine.errors import DeviceError

KEY = PlanKey.of(
    b"a network",
    outputs=["y", "z"],
    shapes={"canvas": (8, 320, 448, 3)},
    precision="fp16",
    gpu="NVIDIA L4",
    capability=(8, 9),
    tensorrt="11.4.0.106",
)
PLAN = np.random.default_rng(0).bytes(5000)


@pytest.fixture
def cache(tmp_path) -> PlanCache:
    return PlanCache(tmp_path, pack="chula12", gpu="NVIDIA L4")


def test_what_was_written_is_read(cache: PlanCache) -> None:
    assert cache.read(KEY) == (None, "not compiled yet")
    cache.write(KEY, PLAN)
    assert cache.read(KEY) == (PLAN, "")
    assert [path.name for path in cache.folder.iterdir()] == ["canvas-8x320x448x3-fp16.plan"]
    cache.remove(KEY)
    cache.remove(KEY)
    assert cache.read(KEY)[0] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"onnx_sha256": "0" * 64}, "was made for another network"),
        ({"outputs": "y"}, "was made for outputs 'y z', and this is 'y'"),
        ({"gpu": "Tesla T4"}, "was made for gpu 'NVIDIA L4', and this is 'Tesla T4'"),
        ({"capability": "7.5"}, "was made for capability '8.9', and this is '7.5'"),
        ({"tensorrt": "11.5"}, "was made for tensorrt '11.4.0.106', and this is '11.5'"),
    ],
)
def test_plans_for_something_else_are_not_used(cache: PlanCache, change, says: str) -> None:
    cache.write(KEY, PLAN)
    plan, reason = cache.read(replace(KEY, **change))
    assert plan is None
    assert says in reason
    # And replaced, not kept beside.
    cache.write(replace(KEY, **change), b"new")
    assert len(list(cache.folder.iterdir())) == 1


def test_another_canvas_is_another_file(cache: PlanCache) -> None:
    cache.write(KEY, PLAN)
    other = replace(KEY, shapes="canvas 1x320x448x3")
    cache.write(other, b"other")
    assert (cache.read(KEY)[0], cache.read(other)[0]) == (PLAN, b"other")


def test_every_cut_and_every_changed_byte_is_noticed(cache: PlanCache) -> None:
    cache.write(KEY, PLAN)
    path = cache.folder / KEY.file_name
    whole = path.read_bytes()
    for length in (0, 1, 17, 18, 100, len(whole) - len(PLAN), len(whole) - 1):
        path.write_bytes(whole[:length])
        plan, reason = cache.read(KEY)
        assert plan is None
        assert "is cut off" in reason or "damaged" in reason or "is no plan" in reason
    for at in range(0, len(whole), 37):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        assert cache.read(KEY)[0] is None, f"byte {at}"
    path.write_bytes(whole + b"x")
    assert "is cut off" in cache.read(KEY)[1]
    path.write_bytes(whole)
    assert cache.read(KEY)[0] == PLAN


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"rbc-engine plan 1\n", b"rbc-engine plan 1\n[]\n", b"rbc-engine plan 1\n{}\nplan"])  # fmt: skip
def test_foreign_files_are_not_used(cache: PlanCache, content: bytes) -> None:
    cache.folder.mkdir(parents=True)
    (cache.folder / KEY.file_name).write_bytes(content)
    assert cache.read(KEY)[0] is None


def test_a_folder_in_the_place_of_a_plan_is_said(cache: PlanCache) -> None:
    (cache.folder / KEY.file_name).mkdir(parents=True)
    assert "cannot be read" in cache.read(KEY)[1]
    with pytest.raises(DeviceError, match=r"cannot be kept.*RBC_ENGINE_CACHE"):
        cache.write(KEY, PLAN)
    assert [path.name for path in cache.folder.iterdir()] == [KEY.file_name]


def test_a_half_written_plan_is_never_seen(cache: PlanCache, monkeypatch) -> None:
    cache.write(KEY, PLAN)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DeviceError, match="No space left on device; free space there"):
        cache.write(KEY, b"newer")
    monkeypatch.undo()
    assert cache.read(KEY)[0] == PLAN
    assert len(list(cache.folder.iterdir())) == 1


def test_names_stay_inside_the_folder(tmp_path) -> None:
    cache = PlanCache(tmp_path, pack="../../etc", gpu="..")
    cache.write(KEY, PLAN)
    assert cache.folder.resolve().is_relative_to(tmp_path.resolve())
    assert cache.folder != tmp_path


def test_the_timing_cache_is_kept_by_version(cache: PlanCache) -> None:
    assert cache.read_timing("11.4") == b""
    cache.write_timing("11.4", b"times")
    assert cache.read_timing("11.4") == b"times"
    assert cache.read_timing("11.5") == b""


def test_the_folder_can_be_chosen(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RBC_ENGINE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "rbc-engine"
    monkeypatch.setenv("RBC_ENGINE_CACHE", "/elsewhere")
    assert str(cache_folder()) == "/elsewhere"
