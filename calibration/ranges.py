"""Choose ranges for a pack's networks by the error that they cause in the networks' own outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from rbc_engine.calibration.histogram import METHODS, Histogram, choose_range
from rbc_engine.calibration.observing_device import INPUTS
from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.errors import UsageError
from rbc_engine.packs.calibration import NetworkRanges
from rbc_engine.packs.quantize import find_layers, quantize

__all__ = ["NetworkProbe", "choose_ranges", "layer_errors", "ranges_by"]

Outputs = dict[str, npt.NDArray[Any]]

_OUTPUTS = {
    "box_head.onnx": ("class_logits", "box_deltas"),
    "classifier.onnx": ("probabilities",),
}


class NetworkProbe:
    """Measure what quantising one network changes on some of its inputs.

    name: one of NETWORKS. data: its ONNX as the pack has it. inputs: [N, ...] as it takes them.
    """

    def __init__(self, name: str, data: bytes, inputs: npt.NDArray[Any]) -> None:
        self.name, self.data = name, data
        self._inputs = inputs
        model = onnx.load_model_from_string(data)
        self.layers = [layer.name for layer in find_layers(model)]
        self._outputs = _OUTPUTS.get(name) or tuple(value.name for value in model.graph.output)
        self._exact = self._run(data, "fp32")

    def error(self, ranges: Mapping[str, float], *, keep_float: Sequence[str] = ()) -> float:
        """Return the RMS change by int8 relative to the RMS of the fp32 outputs, averaged over the
        outputs.
        """
        data = quantize(self.data, ranges, keep_float=keep_float)
        changed = self._run(data, "int8")
        return float(
            np.mean([_relative(changed[name], self._exact[name]) for name in self._outputs])
        )

    def _run(self, data: bytes, precision: str) -> Outputs:
        given = next(name for name, network in INPUTS.items() if network == self.name)
        batch = 1 if self.name == "detector.onnx" else len(self._inputs)
        with HostDevice(precision=precision) as device:
            network = device.load(
                data, outputs=self._outputs, shapes={given: (batch, *self._inputs.shape[1:])}
            )
            runs = []
            for begin in range(0, len(self._inputs), batch):
                outputs = network({given: self._inputs[begin : begin + batch]})
                runs.append({name: array.copy() for name, array in outputs.items()})
        return {name: np.concatenate([run[name] for run in runs]) for name in self._outputs}


def ranges_by(histograms: Mapping[str, Histogram], method: str) -> dict[str, float]:
    """Return the range of every tensor, by one of METHODS.

    Raises UsageError for a tensor that was always zero, or infinite.
    """
    for name, histogram in histograms.items():
        if histogram.infinite or not histogram.largest > 0:
            what = "infinite or not a number" if histogram.infinite else "always zero"
            raise UsageError(
                f"tensor {name} was {what} on these fields, so it has no range; "
                "calibrate with fields that hold cells, or check the pack with `rbc-engine packs "
                "verify`"
            )
    return {name: choose_range(histogram, method) for name, histogram in histograms.items()}


def choose_ranges(
    probe: NetworkProbe, histograms: Mapping[str, Histogram], log: Callable[[str], None]
) -> NetworkRanges:
    """Try every method and take the one whose network differs least from fp32."""
    errors: dict[str, float] = {}
    for method in METHODS:
        errors[method] = round(probe.error(ranges_by(histograms, method)), 6)
        log(f"{probe.name}, {method}: outputs change by {errors[method]:.2%}")
    best = min(errors, key=lambda method: errors[method])
    ranges = {name: round(value, 6) for name, value in ranges_by(histograms, best).items()}
    return NetworkRanges(
        sha256=hashlib.sha256(probe.data).hexdigest(), method=best, error=errors, ranges=ranges
    )


def layer_errors(probe: NetworkProbe, ranges: NetworkRanges) -> dict[str, float]:
    """Measure how much the outputs change if only one layer is quantised, worst first."""
    errors = {
        layer: probe.error(
            ranges.ranges, keep_float=[other for other in probe.layers if other != layer]
        )
        for layer in probe.layers
    }
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def _relative(changed: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    size = float(np.sqrt(np.mean(np.square(exact, dtype=np.float64))))
    return float(np.sqrt(np.mean(np.square(changed - exact, dtype=np.float64)))) / max(size, 1e-12)
