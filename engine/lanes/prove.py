"""Verify a device on a pack's golden inputs before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rbc_engine.devices.base import DeviceChoice
from rbc_engine.errors import DeviceError, PackError
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.stages.call import Caller, types_held
from rbc_engine.packs.golden import ExpectedRegions, compare_at_precision, read_golden
from rbc_engine.packs.pack import Pack
from rbc_engine.stats.drift import Drift
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.kinds import are_red
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = ["check_caller", "check_golden"]

# Of the golden regions, whose abnormal_p was computed from the very same float32 numbers.
_CALLER_TOLERANCE = 1e-5
# Of the red golden regions that must agree where some have more cells than are called as one.
_LEAST_ALIKE = 0.5


def check_caller(pack: Pack, caller: Caller) -> None:
    """Check a pack's caller on the probabilities of its golden regions.

    Where the detector finds cells, a region of many is the largest of its cells' calls, so that only
    half of the regions must agree.

    Raises PackError if it gives another abnormal_p than they have.
    """
    cases = [case.expected for case in read_golden(pack.read("golden.npz"))]
    alike: list[bool] = []
    for expected in cases:
        if expected.probabilities.shape[1] != len(pack.types):
            raise PackError(
                f"golden.npz of pack {pack.name} has {expected.probabilities.shape[1]} types, but "
                f"the pack has {len(pack.types)}; rebuild the pack"
            )
        red = are_red(expected.kind_numbers)
        got = caller(np.ascontiguousarray(expected.probabilities[red]))
        alike += (np.abs(got - expected.abnormal_p[red]) <= _CALLER_TOLERANCE).tolist()
    least = 1.0 if pack.manifest.detector.unit == "region" else _LEAST_ALIKE
    if sum(alike) < least * len(alike):
        raise PackError(
            f"caller.treelite of pack {pack.name} gives another abnormal_p for "
            f"{len(alike) - sum(alike)} of {len(alike)} golden regions; rebuild the pack"
        )


def check_golden(
    pack: Pack,
    choice: DeviceChoice,
    analyze: Callable[[Sequence[Decoded]], Sequence[FieldResult]],
) -> Drift:
    """Run the pack's golden inputs, one by one and as a full batch, and compare the results.

    analyze: results of a batch, from the device of `choice`.

    Returns how the results differ from the golden ones, which are the CPU's in fp32. Raises
    DeviceError naming the differences, after the device's networks were refused.
    """
    cases = read_golden(pack.read("golden.npz"))
    batch = [
        Decoded(
            ref=FieldRef(slide="", field=f"golden {index}", path=Path()),
            # On the canvas of the golden results, whatever the cells look like.
            frame=Frame(
                pixels=case.frame,
                canvas=fit_canvas(
                    case.frame.shape[:2], pixel_um=None, settings=pack.manifest.detector
                ),
            ),
        )
        for index, case in enumerate(cases)
    ]
    full = [batch[index % len(batch)] for index in range(choice.lane_frames if batch else 0)]
    drift = Drift(types=pack.types)
    for together in filter(None, (*([decoded] for decoded in batch), full)):
        for decoded, result in zip(together, analyze(together), strict=True):
            expected = cases[int(decoded.ref.field.split()[1])].expected
            differences = compare_at_precision(
                expected,
                result.regions,
                precision=choice.device.precision,
                score_threshold=pack.manifest.detector.score_threshold,
            )
            if differences:
                choice.refuse()
                raise DeviceError(
                    f"{choice.device.name} ({choice.device.backend}, {choice.device.precision}): "
                    f"{decoded.ref.field} of pack {pack.name} gives a wrong result: "
                    f"{'; '.join(differences[:3])}; the engine is refused: use another --device or "
                    "--precision"
                )
            if len(together) == 1 and result.regions is not None:
                drift.add(_as_regions(pack, expected), result.regions)
    return drift


def _as_regions(pack: Pack, expected: ExpectedRegions) -> Regions:
    return Regions.by_area(
        boxes=expected.boxes,
        scores=expected.scores,
        probabilities=expected.probabilities,
        has=types_held(
            expected.probabilities,
            settings=pack.manifest.classifier,
            kinds=expected.kind_numbers,
        ),
        abnormal_p=expected.abnormal_p,
        abnormal=expected.abnormal_p >= np.float32(pack.manifest.caller.threshold),
        flags=np.zeros(len(expected.boxes), np.uint8),
        kinds=expected.kind_numbers,
    )
