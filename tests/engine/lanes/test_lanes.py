"""Lanes and devices that are slow, out of memory or failing: frames keep results and order."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rbc_engine.engine import Engine
from rbc_engine.errors import DeviceError, DeviceMemoryError
from rbc_engine.packs.pack import Pack
from rbc_engine.types.frames import Decoded, FieldRef, Frame, Place
from rbc_engine.types.results import FieldResult

from ..fakes.scripted import ScriptedDevice, scripted_pack

COUNT = 60


@pytest.fixture(scope="module")
def pack() -> Pack:
    return scripted_pack()


class Elsewhere:
    """Pixels in the memory of a GPU."""

    def __init__(self, number: int, device: int) -> None:
        self.pixels = np.full((100, 300, 3), number, np.uint8)
        self.shape, self.dtype = self.pixels.shape, self.pixels.dtype
        self.place = Place("scripted", device)

    def __getitem__(self, at):
        return self.pixels[at]

    def to_host(self):
        return self.pixels


def source(count: int = COUNT, *, on: int | None = None) -> Iterator[Decoded]:
    for number in range(count):
        pixels = np.full((100, 300, 3), number, np.uint8) if on is None else Elsewhere(number, on)
        ref = FieldRef(slide="s", field=str(number), path=Path(f"{number}.jpg"))
        if number % 10 == 7:
            yield Decoded(ref=ref, error=f"{number} is broken")
        else:
            yield Decoded(ref=ref, frame=Frame(pixels=pixels, slide="s", field=str(number)))


def check(results: list[FieldResult], *, lost_to: str = "") -> int:
    """Every frame has one result, in order, its own. Returns how many were lost to the device."""
    lost = 0
    assert [result.field for result in results] == [str(n) for n in range(len(results))]
    for number, result in enumerate(results):
        if number % 10 == 7:
            assert result.error == f"{number} is broken"
        elif result.error is not None:
            assert lost_to, result.error
            assert lost_to in result.error
            lost += 1
        else:
            assert result.regions is not None
            np.testing.assert_array_equal(result.regions.boxes[:, 0], [number])
            assert result.regions.probabilities[0, 0] == np.float32(number / 255)
    return lost


def drain(engine: Engine, items: Iterator[Decoded]) -> tuple[list[FieldResult], DeviceError | None]:
    results = []
    try:
        for result in engine.run(items):
            results.append(result)
    except DeviceError as error:
        return results, error
    return results, None


def lanes_left(device: ScriptedDevice) -> int:
    return sum(not lane.closed for lane in device.opened)


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_slow_steps_reorder_nothing(pack: Pack, lanes: int) -> None:
    chance = random.Random(lanes)
    overlapping, most, lock = 0, 0, threading.Lock()

    def script(device: ScriptedDevice, step: str) -> None:
        nonlocal overlapping, most
        if step == "patches":
            with lock:
                overlapping += 1
                most = max(most, overlapping)
            time.sleep(chance.random() * 0.02)
            with lock:
                overlapping -= 1

    device = ScriptedDevice(pack, script)
    with Engine.on(pack, device.choice(lanes)) as engine:
        results = list(engine.run(source()))
    assert check(results) == 0
    assert most == lanes
    assert lanes_left(device) == 0


@pytest.mark.parametrize(("fits", "left"), [(3, 2), (2, 2), (1, 1)])
def test_lanes_that_find_no_memory_are_halved(pack: Pack, fits: int, left: int) -> None:
    """Stand for a GPU whose memory holds `fits` lanes of 4: others fail to load their networks."""
    holders: set[int] = set()
    lock = threading.Lock()

    def script(device: ScriptedDevice, step: str) -> None:
        with lock:
            holders.intersection_update(
                lane.lane_number for lane in device.root.opened if not lane.closed
            )
            if step == "load" and device.lane_number not in holders:
                if len(holders) == fits:
                    raise DeviceMemoryError("no memory for a network")
                holders.add(device.lane_number)
        time.sleep(0.001)

    device = ScriptedDevice(pack, script)
    with Engine.on(pack, device.choice(4)) as engine:
        results, error = drain(engine, source())
        assert error is None
        assert engine.lanes == left == lanes_left(device)
        assert "scripted:0: lanes 2 instead of 4: stage" in engine.notes[0]
        assert "no memory for a network" in engine.notes[0]
    assert check(results) == 0
    assert lanes_left(device) == 0


def test_memory_for_no_lane_at_all_is_an_error_with_a_remedy(pack: Pack) -> None:
    def script(device: ScriptedDevice, step: str) -> None:
        if step == "load":
            raise DeviceMemoryError("no memory for a network")

    device = ScriptedDevice(pack, script)
    with Engine.on(pack, device.choice(4)) as engine:
        results, error = drain(engine, source())
        assert "does not hold one lane: free memory on it, or use another --device" in str(error)
        assert check(results, lost_to="no memory for a network") > 0
        with pytest.raises(DeviceError, match="does not hold one lane"):
            engine.analyze(np.zeros((100, 300, 3), np.uint8))
    assert lanes_left(device) == 0


@pytest.mark.parametrize(
    ("step", "stage"),
    [
        ("upload", "detect"),
        ("resize_letterbox", "detect"),
        ("canvas", "detect"),
        ("roi_features", "detect"),
        ("crop_resize", "crop"),
        ("patches", "classify"),
    ],
)
def test_a_device_lost_in_the_middle_leaves_no_frame_without_result(
    pack: Pack, step: str, stage: str
) -> None:
    steps = 0
    most = 16 if step == "upload" else 8  # which is done for each of a batch's two frames
    lock = threading.Lock()

    def script(device: ScriptedDevice, name: str) -> None:
        nonlocal steps
        with lock:
            steps += name == step
            if name == step and steps > most:  # in no other stage of the other lane
                raise DeviceError("the GPU has fallen off the bus")

    device = ScriptedDevice(pack, script)
    taken = 0

    def counted() -> Iterator[Decoded]:
        nonlocal taken
        for decoded in source():
            taken += 1
            yield decoded

    with Engine.on(pack, device.choice(2)) as engine:
        results, error = drain(engine, counted())
    assert f"stage {stage} on scripted:0: the GPU has fallen off the bus" in str(error)
    assert len(results) == taken < COUNT
    assert 0 < check(results, lost_to=f"stage {stage} on scripted:0") < taken
    assert lanes_left(device) == 0


def test_another_gpu_takes_over(pack: Pack) -> None:
    steps = 0

    def script(device: ScriptedDevice, name: str) -> None:
        nonlocal steps
        time.sleep(0.0005)
        steps += device.number == 1 and name == "canvas"
        if steps > 5 and device.number == 1:
            raise DeviceError("gone")

    devices = [ScriptedDevice(pack, script, number=number) for number in (0, 1)]
    with Engine.on(pack, *(device.choice(2) for device in devices)) as engine:
        assert engine.lanes == 4
        results, error = drain(engine, source())
        assert error is None
        assert engine.lanes == 2
        assert len(engine.notes) == 1
        assert "scripted:1 is out of use: stage" in engine.notes[0]
    assert check(results) == 0
    assert sum(map(lanes_left, devices)) == 0


def test_work_spreads_over_all_gpus(pack: Pack) -> None:
    used: set[tuple[int, int]] = set()

    def script(device: ScriptedDevice, name: str) -> None:
        used.add((device.number, device.lane_number))
        time.sleep(0.002)

    devices = [ScriptedDevice(pack, script, number=number) for number in (0, 1)]
    with Engine.on(pack, *(device.choice(2) for device in devices)) as engine:
        assert check(list(engine.run(source()))) == 0
    assert {(0, 0), (1, 0)} <= {(number, 0) for number, _ in used}
    assert len(used) >= 3


def test_frames_in_a_gpus_memory_stay_on_it(pack: Pack) -> None:
    def script(device: ScriptedDevice, name: str) -> None:
        if name == "upload":
            assert device.number == 1

    devices = [ScriptedDevice(pack, script, number=number) for number in (0, 1)]
    with Engine.on(pack, *(device.choice(2) for device in devices)) as engine:
        assert check(list(engine.run(source(20, on=1)))) == 0
        with pytest.raises(
            DeviceError, match="memory of scripted:5, which this engine does not use"
        ):
            list(engine.run(source(2, on=5)))


def test_too_many_lanes_for_the_memory_are_not_begun(pack: Pack) -> None:
    device = ScriptedDevice(pack, lambda device, step: None)
    with Engine.on(pack, device.choice(4)) as engine:
        lane = engine._lanes._pool.take()
        engine._lanes._pool.limit(lane, 3, "a lane takes 1 GiB")
        engine._lanes._pool.give(lane)
        assert engine.lanes == 3
        assert engine.notes == ["scripted:0: lanes 3 instead of 4: a lane takes 1 GiB"]
        assert check(list(engine.run(source()))) == 0
        assert lanes_left(device) == 3
