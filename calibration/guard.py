"""Guard accuracy: accept a precision for a pack only if its measures hold."""

from __future__ import annotations

from collections.abc import Mapping

from rbc_engine.packs.calibration import Acceptance
from rbc_engine.stats.drift import Drift

__all__ = ["LARGEST_FALLS", "MOST_FLIPS", "evaluate_precision"]

LARGEST_FALLS = {
    "ap50": 0.005,
    "mean_auc": 0.003,
    "exact_match": 0.01,
    "abnormal_accuracy": 0.005,
}
"""Largest fall of each measure against fp32."""

MOST_FLIPS = {"labels": 0.01, "abnormal": 0.01}
"""Largest shares that may change against fp32: of the labels of all regions, and of their calls."""


def evaluate_precision(
    fp32: Mapping[str, float],
    measured: Mapping[str, float],
    drift: Drift,
    *,
    device: str,
    smear_groups: int,
) -> Acceptance:
    """Accept a precision if no measure falls too far and few labels flip.

    fp32, measured: the measures of LARGEST_FALLS. drift: from fp32 to the precision. device: its
    name.
    """
    shares = drift.shares()
    reasons = [
        f"{name} falls by {fp32[name] - measured[name]:.4f}, more than {limit:g}"
        for name, limit in LARGEST_FALLS.items()
        if not fp32[name] - measured[name] <= limit
    ]
    reasons += [
        f"{shares[name]:.2%} of {what} flip, more than {MOST_FLIPS[name]:.0%}"
        for name, what in (("labels", "the labels"), ("abnormal", "the calls"))
        if not shares[name] <= MOST_FLIPS[name]
    ]
    return Acceptance(
        accepted=not reasons,
        reasons=tuple(reasons),
        device=device,
        fields=drift.fields,
        smear_groups=smear_groups,
        fp32={name: round(fp32[name], 5) for name in LARGEST_FALLS},
        measured={name: round(measured[name], 5) for name in LARGEST_FALLS},
        flips={name: round(value, 5) for name, value in shares.items()},
    )
