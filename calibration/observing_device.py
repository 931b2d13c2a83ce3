"""Observe the tensors of the networks on a CPU in fp32 while the engine analyses real fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from rbc_engine.calibration.histogram import Histogram
from rbc_engine.devices.cpu.device import HostDevice, HostNetwork
from rbc_engine.meter import Meter
from rbc_engine.packs.quantize import observed_tensors

__all__ = ["INPUTS", "ObservingDevice"]

INPUTS = {"canvas": "detector.onnx", "roi_features": "box_head.onnx", "patches": "classifier.onnx"}
"""The networks of a pack that take each input."""

_KEPT_ROWS = {"detector.onnx": 8, "box_head.onnx": 2000, "classifier.onnx": 256}


class ObservingDevice(HostDevice):
    """Observe the networks on one lane of a HostDevice in fp32.

    histograms: by network and tensor, of everything that `quantize` needs a range for.
    kept: by network, some of its inputs, float32 or uint8 [N, ...], spread over all that came.
    """

    def __init__(self) -> None:
        super().__init__(precision="fp32", lanes=1)
        self.histograms: dict[str, dict[str, Histogram]] = {name: {} for name in INPUTS.values()}
        self.kept: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in INPUTS.values()}
        self._random = np.random.default_rng(0)

    def load(
        self,
        data: bytes,
        *,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        meter: Meter | None = None,
    ) -> Any:
        """Load a network that reports every run to this device."""
        model = onnx.load_model_from_string(data)
        (given,) = shapes
        network = INPUTS[given]
        names = observed_tensors(model)
        inner = [name for name in names if name != given and name not in outputs]
        there = {value.name for value in model.graph.output}
        model.graph.output.extend(
            helper.make_empty_tensor_value_info(name) for name in inner if name not in there
        )
        loaded = super().load(
            model.SerializeToString(), outputs=[*outputs, *inner], shapes=shapes, meter=meter
        )
        return _Watched(loaded, self, network, given, names)

    def see(
        self, network: str, given: npt.NDArray[Any], values: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Record one run; given: the network's input; values: the tensors that need a range."""
        for name, array in values.items():
            self.histograms[network].setdefault(name, Histogram()).add(array)
        # Every run leaves a few rows, so that all fields contribute alike.
        few = {"detector.onnx": 1, "box_head.onnx": 100, "classifier.onnx": 8}[network]
        rows = self._random.permutation(len(given))[:few]
        self.kept[network].append(given[rows].copy())

    def inputs(self, network: str) -> npt.NDArray[Any]:
        """Return inputs of one network, of different fields, without canvases unlike the first in
        size.
        """
        arrays = self.kept[network]
        same = [array for array in arrays if array.shape[1:] == arrays[0].shape[1:]]
        stacked = np.concatenate(same)
        rows = self._random.permutation(len(stacked))[: _KEPT_ROWS[network]]
        return np.ascontiguousarray(stacked[rows])


class _Watched:
    """Wrap a network to record its tensors; see rbc_engine.devices.base.Network."""

    def __init__(
        self,
        network: HostNetwork,
        device: ObservingDevice,
        name: str,
        given: str,
        tensors: Sequence[str],
    ) -> None:
        self._network, self._device, self._name = network, device, name
        self._given, self._tensors = given, tensors

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        outputs = self._network(inputs)
        given = inputs[self._given]
        rows = _without_padding(given)
        self._device.see(
            self._name,
            given[:rows],
            {
                tensor: (given if tensor == self._given else outputs[tensor])[:rows]
                for tensor in self._tensors
            },
        )
        return outputs


def _without_padding(given: npt.NDArray[Any]) -> int:
    """Count the rows before the zeros that pad a batch: no canvas, proposal or patch is all
    zero.
    """
    rows = len(given)
    while rows > 1 and not given[rows - 1].any():
        rows -= 1
    return rows
