"""Turn patches into probabilities: the trunk with its heads, in a few fixed batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

import numpy as np

from rbc_engine.devices.base import Array, Device, Network
from rbc_engine.lanes.stages.patch_batches import split_batches
from rbc_engine.meter import Meter
from rbc_engine.packs.networks import network_of
from rbc_engine.packs.pack import Pack
from rbc_engine.types.arrays import Float32

__all__ = ["Classify"]


class Classify(Generic[Array]):
    """Run the classification stage of one lane.

    batch_sizes: the fixed sizes for which the network is compiled, each at its first use.
    """

    def __init__(
        self, device: Device[Array], pack: Pack, *, batch_sizes: Sequence[int], meter: Meter
    ) -> None:
        self._device = device
        self._pack = pack
        self._sizes = sorted(batch_sizes)
        self._meter = meter
        self._networks: dict[int, Network[Array]] = {}

    def __call__(self, patches: Array) -> Float32:
        """Classify patches, [R, 3, P, P] on the device, normalised. Returns probabilities float32
        [R, T].
        """
        count = len(patches)
        probabilities = self._device.empty((count, len(self._pack.types)), np.float32)
        begin = 0
        for size in split_batches(count, self._sizes):
            end = min(begin + size, count)
            batch = patches[begin:end]
            if end - begin < size:
                padded = self._device.empty((size, *patches.shape[1:]), patches.dtype)
                padded[: end - begin] = batch
                padded[end - begin :] = 0
                batch = padded
            outputs = self._network(size)({"patches": batch})
            probabilities[begin:end] = outputs["probabilities"][: end - begin]
            begin = end
        (downloaded,) = self._device.download(probabilities)
        return downloaded

    def prepare(self) -> None:
        """Compile the networks of all batch sizes."""
        for size in self._sizes:
            self._network(size)

    def _network(self, size: int) -> Network[Array]:
        if size not in self._networks:
            side = self._pack.manifest.classifier.patch_px
            self._networks[size] = self._device.load_classifier(
                network_of(self._pack, "classifier.onnx", precision=self._device.precision),
                heads=self._pack.read("classifier.onnx"),
                shape=(size, 3, side, side),
                meter=self._meter,
            )
        return self._networks[size]
