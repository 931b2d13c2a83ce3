"""Patches to probabilities: the trunk with its heads, in a few fixed batch sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.devices.base import Device, DeviceArray, Network
from rbc_engine.meter import Meter
from rbc_engine.pack import Pack
from rbc_engine.types import Float32

__all__ = ["Classify", "split_batches"]


def split_batches(count: int, sizes: Sequence[int]) -> list[int]:
    """Batch sizes that hold `count` patches: the largest as often as it is filled, then the smallest that fits.

    sizes: the sizes there are, ascending.
    """
    batches = [sizes[-1]] * (count // sizes[-1])
    rest = count % sizes[-1]
    while rest:
        fitting = [size for size in sizes if size >= rest]
        filled = [size for size in sizes if size <= rest]
        # A batch more than a quarter empty is cut once more, if a smaller one can be filled.
        if filled and fitting[0] * 3 > rest * 4:
            batches.append(filled[-1])
            rest -= filled[-1]
        else:
            batches.append(fitting[0])
            rest = 0
    return batches


class Classify:
    """The classification stage of one lane.

    batch_sizes: the fixed sizes that the network is compiled for, each at its first use.
    """

    def __init__(
        self, device: Device, pack: Pack, *, batch_sizes: Sequence[int], meter: Meter
    ) -> None:
        self._device = device
        self._pack = pack
        self._sizes = sorted(batch_sizes)
        self._meter = meter
        self._networks: dict[int, Network] = {}

    def __call__(self, patches: DeviceArray) -> Float32:
        """patches: float32 [R, 3, P, P] on the device, normalised. Returns probabilities float32 [R, T]."""
        count = len(patches)
        probabilities = np.empty((count, len(self._pack.types)), np.float32)
        begin = 0
        for size in split_batches(count, self._sizes):
            end = min(begin + size, count)
            batch = patches[begin:end]
            if end - begin < size:
                padded = self._device.empty((size, *patches.shape[1:]), np.float32)
                padded[: end - begin] = batch
                padded[end - begin :] = 0
                batch = padded
            network = self._network(size)
            with self._meter.network():
                outputs = network({"patches": batch})
            probabilities[begin:end] = self._device.download(outputs["probabilities"])[
                : end - begin
            ]
            begin = end
        return probabilities

    def prepare(self) -> None:
        """Compiles the networks of all batch sizes."""
        for size in self._sizes:
            self._network(size)

    def _network(self, size: int) -> Network:
        if size not in self._networks:
            side = self._pack.manifest.classifier.patch_px
            self._networks[size] = self._device.load(
                self._pack.read("classifier.onnx"),
                outputs=["probabilities"],
                shapes={"patches": (size, 3, side, side)},
            )
        return self._networks[size]
