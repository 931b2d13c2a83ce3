"""The guard: what it lets pass, and what it must not."""

from __future__ import annotations

import numpy as np
import pytest

from rbc_engine.calibration.guard import LARGEST_FALLS, MOST_FLIPS, evaluate_precision
from rbc_engine.stats.drift import Drift
from rbc_engine.types.regions import Regions

FP32 = dict.fromkeys(LARGEST_FALLS, 0.9)


def drifted(*, labels: int = 0, abnormal: int = 0, regions: int = 1000) -> Drift:
    """Two types; so many labels and calls flip."""

    def make(flipped: int, otherwise: int) -> Regions:
        boxes = np.arange(regions, dtype=np.float32)[:, None] * 20 + np.array([0, 0, 10, 10], "f4")
        has = np.zeros((regions, 2), bool)
        has[:flipped, 0] = True
        return Regions.by_area(
            boxes=boxes.astype(np.float32),
            scores=np.ones(regions, np.float32),
            probabilities=has.astype(np.float32),
            has=has,
            abnormal_p=np.zeros(regions, np.float32),
            abnormal=np.arange(regions) < otherwise,
            flags=np.zeros(regions, np.uint8),
        )

    drift = Drift(types=("a", "b"))
    drift.add(make(0, 0), make(labels, abnormal))
    return drift


def evaluate(measured=FP32, **drift):
    return evaluate_precision(FP32, measured, drifted(**drift), device="cpu: x", smear_groups=3)


def test_the_same_answers_are_accepted() -> None:
    verdict = evaluate()
    assert verdict.accepted
    assert verdict.reasons == ()
    assert (verdict.fields, verdict.smear_groups, verdict.device) == (1, 3, "cpu: x")


@pytest.mark.parametrize("name", LARGEST_FALLS)
def test_each_measure_may_fall_so_far_and_no_further(name: str) -> None:
    limit = LARGEST_FALLS[name]
    assert evaluate({**FP32, name: 0.9 - 0.9 * limit}).accepted
    refused = evaluate({**FP32, name: 0.9 - 1.1 * limit})
    assert not refused.accepted
    assert refused.reasons[0].startswith(f"{name} falls by ")
    assert evaluate({**FP32, name: 1.0}).accepted, "a rise is no harm"


def test_flips_are_limited() -> None:
    # Of 2000 labels and 1000 verdicts.
    most = int(2000 * MOST_FLIPS["labels"])
    assert evaluate(labels=most).accepted
    assert "of the labels flip" in evaluate(labels=most + 1).reasons[0]
    most = int(1000 * MOST_FLIPS["abnormal"])
    assert evaluate(abnormal=most).accepted
    assert "of the calls flip" in evaluate(abnormal=most + 1).reasons[0]
