"""Time the ops and networks of a device one by one while the engine runs on it as usual."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy.typing as npt

from rbc_engine.closing import Closing
from rbc_engine.devices.base import AnyDevice, DeviceArray, HostArray, Network, Ops

__all__ = ["NETWORKS", "Stopwatch", "WatchedDevice", "WatchedNetwork"]

NETWORKS = {"canvas": "network A", "roi_features": "network B", "patches": "classifier"}
"""Name of each network, by the name of its input."""


class Stopwatch:
    """Add up, from any thread, the seconds of each part, and know the networks of all lanes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = defaultdict(float)
        self.networks: list[WatchedNetwork] = []

    def reset(self) -> None:
        with self._lock:
            self.seconds.clear()
            for network in self.networks:
                network.calls = 0

    def add(self, network: WatchedNetwork) -> None:
        with self._lock:
            self.networks.append(network)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            with self._lock:
                self.seconds[part] += seconds


class WatchedDevice(Closing):
    """Pass everything on to a device on the host; see rbc_engine.devices.base.Device.

    Times mean nothing on a GPU, where a call returns before its work is done.
    """

    def __init__(self, device: AnyDevice, stopwatch: Stopwatch) -> None:
        self._device = device
        self._stopwatch = stopwatch
        self.name, self.backend, self.precision = device.name, device.backend, device.precision
        self.ops = cast(Ops[Any], _WatchedOps(device.ops, stopwatch))

    def enter(self) -> None:
        self._device.enter()

    def lane(self) -> WatchedDevice:
        lane = self._device.lane()
        return self if lane is self._device else WatchedDevice(lane, self._stopwatch)

    def free_bytes(self) -> int | None:
        return self._device.free_bytes()

    def upload(self, array: Any) -> Any:
        return self._device.upload(array)

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        return self._device.empty(shape, dtype)

    def download(self, *arrays: Any) -> tuple[HostArray, ...]:
        return self._device.download(*arrays)

    def load(self, onnx: bytes, **options: Any) -> WatchedNetwork:
        return WatchedNetwork(self._device.load(onnx, **options), self._stopwatch)

    def load_classifier(self, onnx: bytes, **options: Any) -> WatchedNetwork:
        return WatchedNetwork(self._device.load_classifier(onnx, **options), self._stopwatch)

    def close(self) -> None:
        """Do nothing: the device belongs to the engine that opened it."""


class WatchedNetwork:
    """Time one lane's network for one shape. name, input: of the network and its input. example:
    the last input.

    calls: since the stopwatch was reset.
    """

    def __init__(self, network: Network[Any], stopwatch: Stopwatch) -> None:
        self.network = network
        self.name = self.input = ""
        self.example: DeviceArray | None = None
        self.calls = 0
        self._stopwatch = stopwatch
        stopwatch.add(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return () if self.example is None else self.example.shape

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        ((self.input, self.example),) = inputs.items()
        self.name = NETWORKS[self.input]
        self.calls += 1
        with self._stopwatch.time(self.name):
            return self.network(inputs)


class _WatchedOps:
    def __init__(self, ops: Ops[Any], stopwatch: Stopwatch) -> None:
        self._ops = ops
        self._stopwatch = stopwatch

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = getattr(self._ops, name)

        def timed(*args: Any, **options: Any) -> Any:
            with self._stopwatch.time(name):
                return op(*args, **options)

        return timed
