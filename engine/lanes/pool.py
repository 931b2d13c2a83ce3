"""Manage the lanes of an engine over all its devices: which are free, and which are left when a
device fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import overload

from rbc_engine.errors import DeviceError, DeviceMemoryError
from rbc_engine.lanes.base import AnyLane
from rbc_engine.types.frames import Place

__all__ = ["DeviceLanes", "LanePool"]


class DeviceLanes:
    """Hold the lanes of one device.

    place: the memory whose frames they take in place, beside the host's.
    wanted: how many there should be; those beyond it are closed as they come back.
    """

    def __init__(self, name: str, place: Place, lanes: Sequence[AnyLane]) -> None:
        self.name = name
        self.place = place
        self.wanted = len(lanes)
        self.alive = len(lanes)
        self.free = list(lanes)


class LanePool:
    """Hand out lanes, one thread per lane. Every lane from `take` comes back by exactly one of
    `give`, `shrink` and `lose`.

    say: called with one line on what changed.
    """

    def __init__(self, devices: Sequence[DeviceLanes], *, say: Callable[[str], None]) -> None:
        self._devices = list(devices)
        self._owner = {lane: device for device in devices for lane in device.free}
        self._say = say
        self._changed = threading.Condition()
        self._failure: DeviceError | None = None

    def __len__(self) -> int:
        with self._changed:
            return sum(device.wanted for device in self._devices)

    @overload
    def take(self, place: Place | None = None) -> AnyLane: ...

    @overload
    def take(self, place: Place | None = None, *, timeout_s: float) -> AnyLane | None: ...

    def take(self, place: Place | None = None, *, timeout_s: float | None = None) -> AnyLane | None:
        """Wait for a free lane. place: only on this device, because the frames are in its memory.

        None if none was free within timeout_s, if given. Raises the DeviceError that
        ended the last device, if none is left.
        """
        with self._changed:
            while True:
                usable = [
                    device
                    for device in self._devices
                    if device.wanted and place in (None, device.place)
                ]
                if not usable:
                    raise self._failure or DeviceError(
                        f"the frames are in the memory of {place}, which this engine does not use"
                    )
                # The device with the most lanes free: work spreads over all of them.
                device = max(usable, key=lambda device: len(device.free))
                if device.free:
                    return device.free.pop()
                if not self._changed.wait(timeout_s):
                    return None

    def give(self, lane: AnyLane) -> None:
        """Take back an intact lane."""
        with self._changed:
            device = self._owner[lane]
            surplus = device.alive > device.wanted
            if surplus:
                device.alive -= 1
            else:
                device.free.append(lane)
            self._changed.notify_all()
        if surplus:
            _close(lane)

    def shrink(self, lane: AnyLane, error: DeviceMemoryError) -> None:
        """Close a lane whose device had no memory left for it, and halve the lanes of that device.

        Raises DeviceError if it was the last one.
        """
        with self._changed:
            device = self._owner[lane]
            before = device.wanted
            device.alive -= 1
            # Not once more for a lane that failed before the halving took effect.
            if device.alive < device.wanted:
                device.wanted //= 2
            wanted = device.wanted
        _close(lane)
        if before and not wanted:
            self._end(
                device,
                DeviceError(
                    f"{error}; it does not hold one lane: free memory on it, or use another "
                    "--device"
                ),
            )
        elif wanted < before:
            self._limited(device, f"lanes {wanted} instead of {before}: {error}")

    def lose(self, lane: AnyLane, error: DeviceError) -> None:
        """Give up the device of a lane. Its other lanes are closed as they come back."""
        with self._changed:
            device = self._owner[lane]
            device.alive -= 1
        _close(lane)
        self._end(device, error)

    def limit(self, lane: AnyLane, most: int, reason: str) -> None:
        """Keep at most `most` lanes of the device to which this one belongs."""
        device = self._owner[lane]
        with self._changed:
            before = device.wanted
            device.wanted = min(before, max(1, most))
            wanted = device.wanted
        if wanted < before:
            self._limited(device, f"lanes {wanted} instead of {before}: {reason}")

    def close(self) -> None:
        """Close the lanes that are free. Call it when no thread uses one."""
        with self._changed:
            lanes = [lane for device in self._devices for lane in device.free]
            for device in self._devices:
                device.free.clear()
        for lane in lanes:
            _close(lane)

    def _limited(self, device: DeviceLanes, line: str) -> None:
        self._drop_surplus(device)
        self._say(f"{device.name}: {line}")

    def _end(self, device: DeviceLanes, error: DeviceError) -> None:
        with self._changed:
            first = device.wanted > 0 or self._failure is None
            device.wanted = 0
            self._failure = error if first else self._failure
            others = any(other.wanted for other in self._devices)
        self._drop_surplus(device)
        if others and first:
            self._say(f"{device.name} is out of use: {error}")

    def _drop_surplus(self, device: DeviceLanes) -> None:
        with self._changed:
            surplus = []
            while device.free and device.alive > device.wanted:
                surplus.append(device.free.pop())
                device.alive -= 1
            self._changed.notify_all()
        for lane in surplus:
            _close(lane)


def _close(lane: AnyLane) -> None:
    """Free what the lane holds. A lost device refuses that too, which no longer matters."""
    with suppress(DeviceError):
        lane.close()
