"""Test a pack's precisions on labelled fields: see rbc_engine.calibration.calibrate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.evaluation.findings import MIN_EXAMPLES, analyze_fields, measure
from rbc_engine.training.evaluation.observe import open_at_floor
from rbc_engine.types.regions import Regions

__all__ = ["FieldEvaluation"]


class FieldEvaluation:
    """Score precisions on fields: labelled, with types in the order of the pack's."""

    def __init__(self, fields: Sequence[LabelledField]) -> None:
        self._fields = fields
        self.smear_groups = len({field.group for field in fields})

    def __call__(
        self, pack: Pack, device: str, precision: str
    ) -> tuple[str, dict[str, float], list[Regions]]:
        """Run the engine over the fields.

        Returns the device's name, the measures that a precision is tested by, and the regions of
        every field. Raises ImageError for a field that cannot be analysed.
        """
        engine, _ = open_at_floor(pack, device=device, precision=precision)
        with engine:
            findings = analyze_fields(engine, self._fields)
            name = engine.choice.device.name
        threshold = pack.manifest.detector.score_threshold
        measures = measure(
            findings,
            score_threshold=threshold,
            types=pack.types,
            abnormal=pack.manifest.abnormal,
            digits=6,
        )
        evaluated = {
            "ap50": measures["ap50"],
            "mean_auc": measures[f"mean_auc_types_with_{MIN_EXAMPLES}_regions"],
            "exact_match": measures["exact_match_typed_regions"],
            "abnormal_accuracy": measures[
                "abnormal_accuracy_typed_regions_caller_trained_on_these_smears"
            ],
        }
        return name, evaluated, [_kept(regions, threshold) for regions in findings.found]


def _kept(regions: Regions, threshold: float) -> Regions:
    """Return the regions that the pack reports."""
    return regions.take(regions.scores >= np.float32(threshold))
