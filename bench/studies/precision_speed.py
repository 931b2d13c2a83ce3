"""Measure what lower precisions gain on this CPU: each network, and the whole path, with every
precision in turn.

    python -m rbc_engine.bench.studies.precision_speed --data DIR

Networks run on one thread, as in a lane; the whole path runs on all cores, from files to results.
Ratios are taken turn by turn. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.bench.instruments.spreads import in_turn, ratio_spread, spread
from rbc_engine.devices.cpu.device import HostDevice, host_precisions
from rbc_engine.engine import Engine
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.packs.calibration import NETWORKS
from rbc_engine.packs.networks import network_of
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.files import FileSource

__all__ = ["measure_networks", "measure_whole"]

_PATCHES = 64
_FIELD_HW = (960, 1280)

Seconds = Mapping[str, list[float]]


def measure_networks(pack: Pack, *, repeats: int) -> dict[str, Seconds]:
    """Return the seconds of each run of each network in each precision, in turn, on one thread."""
    settings = pack.manifest.detector
    canvas = fit_canvas(_FIELD_HW, pixel_um=None, settings=settings).canvas_hw
    size, side = settings.roi_size, pack.manifest.classifier.patch_px
    rng = np.random.default_rng(0)
    levels = range(len(settings.strides_px))
    inputs: dict[str, tuple[str, npt.NDArray[Any], list[str]]] = {
        "detector.onnx": (
            "canvas",
            rng.integers(0, 256, (1, *canvas, 3), np.uint8),
            [
                *(f"features_{level}" for level in range(settings.roi_levels)),
                *(f"{kind}_{level}" for kind in ("objectness", "deltas") for level in levels),
            ],
        ),
        "box_head.onnx": (
            "roi_features",
            rng.random((settings.proposals, settings.feature_channels, size, size), np.float32),
            ["class_logits", "box_deltas"],
        ),
        "classifier.onnx": (
            "patches",
            rng.standard_normal((_PATCHES, 3, side, side)).astype(np.float32),
            ["probabilities"],
        ),
    }
    measured: dict[str, Seconds] = {}
    for name in NETWORKS:
        given, array, outputs = inputs[name]
        with ExitStack() as stack:
            runs: dict[str, Callable[[], object]] = {}
            for precision in host_precisions():
                device = stack.enter_context(HostDevice(precision=precision, threads=1))
                network = device.load(
                    network_of(pack, name, precision=precision),
                    outputs=outputs,
                    shapes={given: array.shape},
                )
                runs[precision] = partial(network, {given: array})
            measured[name] = in_turn(runs, warm_up=2, repeats=repeats)
    return measured


def measure_whole(pack: Path, data: Path, *, repeats: int) -> Seconds:
    """Return the seconds of each pass over the images of a folder in each precision, in turn,
    without opening the engine.
    """
    entries = find_fields([data]).entries

    def run(engine: Engine) -> None:
        with FileSource(entries, workers=2, ahead=8) as source:
            for _ in engine.run(source):
                pass

    with ExitStack() as stack:
        runs = {
            precision: partial(
                run, stack.enter_context(Engine.open(pack, device="cpu", precision=precision))
            )
            for precision in host_precisions()
        }
        return in_turn(runs, warm_up=1, repeats=repeats)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--pack", default="chula12", help="name or folder (chula12)")
    parser.add_argument("--repeats", type=int, default=9, help="measured turns (9)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    folder = find_pack(options.pack)
    parts = measure_networks(Pack.open(folder), repeats=options.repeats)
    parts["files to results"] = measure_whole(folder, options.data, repeats=options.repeats)
    rows: list[dict[str, Any]] = []
    for part, seconds in parts.items():
        slowest = seconds["fp32"]
        for precision, taken in seconds.items():
            gain = ratio_spread(slowest, taken)
            rows.append(
                {
                    "part": part,
                    "precision": precision,
                    "ms": round(1e3 * spread(taken).median, 2),
                    "times_fp32": round(gain.median, 2),
                    "times_fp32_quartiles": [round(gain.q1, 2), round(gain.q3, 2)],
                }
            )
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        low, high = row["times_fp32_quartiles"]
        print(
            f"{row['part']:18} {row['precision']:5} {row['ms']:10} ms   {row['times_fp32']:.2f} x "
            f"fp32 ({low} to {high})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
