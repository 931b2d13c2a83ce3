"""Turn the trainings on a collection of laboratories into a pack: export, fit temperatures, caller
and thresholds to held-out fields of all of them, measure, write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torchvision.models.detection import FasterRCNN

from rbc_engine.errors import UsageError
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.packs.manifest import FamiliaritySettings, FieldPriorSettings, Rate
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.evaluation.findings import analyze_fields, measure
from rbc_engine.training.fit.caller import train_caller
from rbc_engine.training.fit.cell_types.examples import Examples
from rbc_engine.training.fit.temperature import fit_temperatures
from rbc_engine.training.networks.models import Classifier
from rbc_engine.training.packing.assemble import calibration_measures, caller_measures
from rbc_engine.training.packing.cell_threshold import analyzed_cells, choose_threshold
from rbc_engine.training.packing.draft import Draft, Notes, export_networks
from rbc_engine.training.packing.evidence import Evidence, predict_evidence
from rbc_engine.training.packing.honesty import (
    FEWEST_FIELDS,
    calling_rates,
    choose_unsure_below,
    describe_fields,
    fit_familiarity,
)
from rbc_engine.training.recipes import FIELD_PRIOR_CELLS, PackRecipe

__all__ = ["CellTraining", "assemble_cell_pack"]

Log = Callable[[str], None]

_RESTAINED = 2
# Weights in the caller's training, a region of known types in its own stain having 1.
_RESTAINED_WEIGHT, _HEALTHY_WEIGHT = 0.25, 0.5
_SENSITIVITY = 0.955


@dataclass(frozen=True, eq=False, kw_only=True)
class CellTraining:
    """Hold what the trainings on a collection leave.

    recipe: with the settings of the classifier's patches. dataset: the typed one.
    held_out: fields of all laboratories. examples: of these.
    stained: the fields trained on, whose stains are used and which are familiar.
    frequencies: T shares of the drawn regions that held each type.
    """

    recipe: PackRecipe
    dataset: Dataset
    held_out: Sequence[CellField]
    examples: Examples
    stained: Sequence[CellField]
    frequencies: Sequence[float]
    detector: FasterRCNN
    classifier: Classifier


def assemble_cell_pack(
    out: Path, trained: CellTraining, *, seed: int, notes: Notes, scratch: Path, log: Log
) -> Pack:
    """Make the pack and write it to `out`. notes: for the manifest's `training`. scratch: a folder
    for drafts.

    Raises UsageError if the held-out fields are too few, OutputError if `out` cannot be written.
    """
    recipe, dataset = trained.recipe, trained.dataset
    is_abnormal = np.isin(dataset.types, dataset.abnormal)
    log(f"predicting {len(trained.examples)} held-out regions")
    evidence = predict_evidence(
        trained.classifier,
        trained.examples,
        trained.stained,
        is_abnormal=is_abnormal,
        settings=recipe.classifier,
        restained=_RESTAINED,
        seed=seed,
    )
    known = ~evidence.healthy
    calibration = fit_temperatures(
        evidence.probabilities[known], evidence.types[known], evidence.groups[known]
    )
    prior = FieldPriorSettings(frequencies=tuple(trained.frequencies), cells=FIELD_PRIOR_CELLS)
    probabilities = evidence.corrected(calibration.temperatures, FieldPrior(prior))
    weights = np.where(evidence.restained, _RESTAINED_WEIGHT, 1.0)
    weights[evidence.healthy] = _HEALTHY_WEIGHT
    caller, report = train_caller(
        probabilities, evidence.abnormal, evidence.groups, seed=seed, weights=weights
    )
    rates = _calling_rates(evidence, report.abnormal_p)
    log(
        f"caller: AUC {report.auc:.4f}, threshold {rates.threshold:.3f}, sensitivity "
        f"{rates.sensitivity.value:.3f}, specificity {rates.specificity.value:.3f}; healthy "
        f"donors' cells called abnormal {rates.healthy:.3f}, restained {rates.restained}"
    )
    unsure = choose_unsure_below(
        probabilities.max(axis=1),
        known & ~evidence.types[np.arange(len(probabilities)), probabilities.argmax(axis=1)],
        np.where(evidence.restained, "restained", evidence.laboratories),
    )
    log(
        f"unsure below {unsure.below:.3f}: {unsure.unsure:.3f} of a laboratory's regions at most, "
        f"{unsure.caught:.3f} of the wrong ones"
    )
    recipe = replace(
        recipe,
        classifier=recipe.classifier.model_copy(
            update={
                "temperatures": tuple(calibration.temperatures.round(4).tolist()),
                "field_prior": prior,
                "unsure_below": unsure.below,
            }
        ),
        caller=recipe.caller.model_copy(
            update={
                "threshold": rates.threshold,
                "sensitivity": rates.sensitivity,
                "specificity": rates.specificity,
            }
        ),
    )
    draft = Draft(
        recipe=recipe,
        dataset=dataset,
        notes=notes,
        files=export_networks(recipe, trained.detector, trained.classifier, log)
        | {"caller.treelite": caller},
        scratch=scratch,
        familiarity=_familiarity(trained.stained, seed=seed, log=log),
    )
    typed = [field.labels for field in trained.held_out if field.labels is not None]
    boxed = [field for field in trained.held_out if field.labels is None and len(field.boxes)]
    log(f"measuring on {len(typed)} and {len(boxed)} held-out fields")
    with draft.engine(recipe.detector.score_threshold, estimate_scale=True) as engine:
        threshold, errors = choose_threshold(analyzed_cells(engine, boxed))
    with draft.engine(threshold) as engine:
        findings = analyze_fields(engine, typed)
    log(f"score threshold {threshold:g}; computing the golden results")
    accuracy: dict[str, str | int | float | bool] = {
        **calibration_measures(calibration),
        **caller_measures(report),
        **{f"missed_and_false_cells_{name}": round(errors[name], 4) for name in sorted(errors)},
        "healthy_cells_called_abnormal": round(rates.healthy, 4),
        "restained_specificity": round(rates.restained[0], 4),
        "restained_sensitivity": round(rates.restained[1], 4),
        **measure(
            findings, score_threshold=threshold, types=dataset.types, abnormal=dataset.abnormal
        ),
    }
    return draft.write(out, score_threshold=threshold, accuracy=accuracy)


def _familiarity(fields: Sequence[CellField], *, seed: int, log: Log) -> FamiliaritySettings | None:
    described = describe_fields((f.laboratory, f.group, f.pixels) for f in fields)
    count = len(described.numbers)
    if count < FEWEST_FIELDS:
        log(f"{count} fields are too few to recognize unfamiliar ones by: none will be flagged")
        return None
    return fit_familiarity(described, seed=seed)


@dataclass(frozen=True, kw_only=True)
class _CallingRates:
    threshold: float
    sensitivity: Rate
    specificity: Rate
    healthy: float
    restained: tuple[float, float]


def _calling_rates(evidence: Evidence, abnormal_p: np.ndarray) -> _CallingRates:
    """Choose the highest threshold at which enough of the abnormal regions are called so, and
    return the rates there. abnormal_p: float64 [R], of callers that saw no region of its group.
    """
    sick = evidence.typed & evidence.abnormal
    if not sick.any():
        raise UsageError("no held-out region of known types is abnormal; raise --validation-share")
    threshold = round(float(np.quantile(abnormal_p[sick], 1 - _SENSITIVITY)), 4)
    called = abnormal_p >= threshold
    own = ~evidence.restained
    sensitivity, specificity = calling_rates(
        called[own], evidence.abnormal[own], evidence.groups[own], evidence.laboratories[own]
    )

    def share(mask: np.ndarray) -> float:
        return float(called[mask].mean()) if mask.any() else float("nan")

    other = evidence.restained
    return _CallingRates(
        threshold=threshold,
        sensitivity=sensitivity,
        specificity=specificity,
        healthy=share(evidence.healthy),
        restained=(1 - share(other & ~evidence.abnormal), share(other & evidence.abnormal)),
    )
