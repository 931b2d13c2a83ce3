"""Turn two finished trainings into a pack: export, train the caller, choose the operating point,
measure, write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.models.detection import FasterRCNN

from rbc_engine.errors import UsageError
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.packs.manifest import FieldPriorSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.evaluation.findings import Findings, analyze_fields, measure
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.training.fit.caller import CallerReport, train_caller
from rbc_engine.training.fit.classifier import predict
from rbc_engine.training.fit.region_set import load_regions
from rbc_engine.training.fit.temperature import TemperatureReport, fit_temperatures, tempered
from rbc_engine.training.fit.thresholds import best_f1_thresholds
from rbc_engine.training.networks.models import Classifier
from rbc_engine.training.packing.draft import Draft, Notes, export_networks
from rbc_engine.training.recipes import FIELD_PRIOR_CELLS, PackRecipe

__all__ = ["assemble_final_pack", "assemble_pack", "calibration_measures", "caller_measures"]

Log = Callable[[str], None]


def assemble_pack(
    out: Path,
    *,
    recipe: PackRecipe,
    dataset: Dataset,
    held_out: Sequence[LabelledField],
    frequencies: Sequence[float],
    detector: FasterRCNN,
    classifier: Classifier,
    seed: int,
    max_false_share: float,
    best_f1: bool = False,
    notes: Notes,
    scratch: Path,
    log: Log,
) -> Pack:
    """Make the pack and write it to `out`.

    held_out: fields of smears on which neither network was trained; temperatures, caller and score
        threshold are fitted to them.
    frequencies: T shares of the regions that held each type when the classifier was trained.
    max_false_share: of the regions found, at the score threshold.
    best_f1: thresholds of the types by their F1 on the held-out smears, instead of the recipe's.
    notes: for the manifest's `training`.
    scratch: a folder for drafts, which are removed.

    Raises UsageError if the held-out fields are too few or the detector cannot keep to
    max_false_share, OutputError if `out` cannot be written.
    """
    regions = load_regions(held_out, short_side_px=recipe.detector.short_side_px)
    log(f"training the caller on {len(regions)} regions of held-out smears")
    is_abnormal = np.isin(dataset.types, dataset.abnormal)
    probabilities = predict(classifier, regions, settings=recipe.classifier)
    calibration = fit_temperatures(probabilities, regions.types, regions.groups)
    prior = FieldPriorSettings(frequencies=tuple(frequencies), cells=FIELD_PRIOR_CELLS)
    recipe = _with(
        recipe,
        temperatures=tuple(calibration.temperatures.round(4).tolist()),
        field_prior=prior,
    )
    probabilities = FieldPrior(prior)(
        tempered(probabilities, calibration.temperatures),
        np.ones(len(regions), np.bool_),
        np.bincount(regions.frame_index).tolist(),
    )
    if best_f1:
        recipe = _with_thresholds(recipe, best_f1_thresholds(regions.types, probabilities))
    caller, report = train_caller(
        probabilities,
        np.asarray(regions.types[:, is_abnormal].any(axis=1)),
        regions.groups,
        seed=seed,
    )
    draft = Draft(
        recipe=recipe,
        dataset=dataset,
        notes=notes,
        files=export_networks(recipe, detector, classifier, log) | {"caller.treelite": caller},
        scratch=scratch,
    )
    log(f"measuring on {len(held_out)} held-out fields")
    floor = recipe.detector.score_threshold
    with draft.engine(floor) as engine:
        findings = analyze_fields(engine, held_out)
    threshold = _operating_point(findings, max_false_share=max_false_share, floor=floor)
    log(f"score threshold {threshold:g}; computing the golden results")
    accuracy = (
        calibration_measures(calibration)
        | caller_measures(report)
        | measure(
            findings, score_threshold=threshold, types=dataset.types, abnormal=dataset.abnormal
        )
    )
    return draft.write(out, score_threshold=threshold, accuracy=accuracy)


def assemble_final_pack(
    out: Path,
    *,
    recipe: PackRecipe,
    dataset: Dataset,
    measured: Pack,
    detector: FasterRCNN,
    classifier: Classifier,
    notes: Notes,
    scratch: Path,
    log: Log,
) -> Pack:
    """Make the pack of networks that were trained on all smears, and write it to `out`.

    measured: a pack of the same recipe with smears held out. Its caller, thresholds, temperatures,
        frequencies and accuracy are taken over, because no smears are left to measure these
        networks on.

    Raises UsageError if `measured` is of another recipe, OutputError if `out` cannot be written.
    """
    detector_settings = measured.manifest.detector
    expected = recipe.detector.model_copy(
        update={"score_threshold": detector_settings.score_threshold}
    )
    fitted = measured.manifest.classifier
    recipe = _with(
        recipe,
        thresholds=fitted.thresholds,
        temperatures=fitted.temperatures,
        field_prior=fitted.field_prior,
    )
    if (
        measured.types != dataset.types
        or fitted != recipe.classifier
        or detector_settings != expected
    ):
        raise UsageError(
            f"--measured-by {measured.folder} has other types or settings than this training; "
            f"make it again with this version and the same --format"
        )
    draft = Draft(
        recipe=recipe,
        dataset=dataset,
        notes=notes,
        files=export_networks(recipe, detector, classifier, log)
        | {"caller.treelite": measured.read("caller.treelite")},
        scratch=scratch,
    )
    log("computing the golden results")
    return draft.write(
        out,
        score_threshold=detector_settings.score_threshold,
        accuracy=measured.manifest.accuracy,
    )


def _operating_point(findings: Findings, *, max_false_share: float, floor: float) -> float:
    threshold = metrics.lowest_threshold(
        findings.correct, findings.scores, max_false_share=max_false_share, floor=floor
    )
    if threshold is None:
        raise UsageError(
            f"at no score threshold are at most {max_false_share:g} of the detector's regions "
            f"false ({len(findings.scores)} regions found on held-out smears, "
            f"{int(findings.correct.sum())} of them true); train it for more steps, or raise "
            "--max-false-share"
        )
    return threshold


def _with_thresholds(recipe: PackRecipe, thresholds: Sequence[float | None]) -> PackRecipe:
    """Replace thresholds of a recipe; None keeps a type's own."""
    settled = tuple(
        own if chosen is None else chosen
        for own, chosen in zip(recipe.classifier.thresholds, thresholds, strict=True)
    )
    return _with(recipe, thresholds=settled)


def _with(recipe: PackRecipe, **of_classifier: Any) -> PackRecipe:
    return replace(recipe, classifier=recipe.classifier.model_copy(update=of_classifier))


def calibration_measures(report: TemperatureReport) -> dict[str, float | int]:
    """Return the calibration measures; none if no type has enough examples."""
    errors = {
        "calibration_error_before_temperatures": report.error_before,
        "calibration_error_cross_validated_by_smear": report.error_after,
    }
    return {name: round(error, 4) for name, error in errors.items() if np.isfinite(error)}


def caller_measures(report: CallerReport) -> dict[str, float | int]:
    return {
        "abnormal_accuracy_regions_cross_validated_by_smear": round(report.accuracy, 4),
        "abnormal_auc_regions_cross_validated_by_smear": round(report.auc, 4),
        "caller_temperature": round(report.temperature, 4),
        "caller_regions": report.regions,
        "caller_folds": report.folds,
    }
