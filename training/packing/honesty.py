"""Choose, from held-out data, when a pack doubts its own results: fields unlike the training,
foreground that no box covers, regions without a likely type, and how surely its calls are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import UsageError
from rbc_engine.lanes.measure import measure_field
from rbc_engine.lanes.stages.doubts.familiar import Familiarity, describe_field
from rbc_engine.packs.manifest import FIELD_FEATURES, FamiliaritySettings, Rate
from rbc_engine.types.arrays import UInt8

__all__ = [
    "FEWEST_FIELDS",
    "DescribedFields",
    "UnsureChoice",
    "calling_rates",
    "choose_uncovered_above",
    "choose_unsure_below",
    "describe_fields",
    "fit_familiarity",
]

FEWEST_FIELDS = 50
"""Fewer say too little of what is familiar."""

_FOLDS = 5
_SHRINKAGE = 0.1
# A spread that no feature has less of, so that equal fields do not make every other one strange.
_LEAST_SPREAD = 0.02
_DIGITS = 8

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Names = Sequence[str] | npt.NDArray[np.str_]


@dataclass(frozen=True, eq=False, kw_only=True)
class DescribedFields:
    """Hold F fields as the engine describes them.

    numbers: float64 [F, K], K as FIELD_FEATURES. laboratories, smears: F names. Fields of one smear
    are never on both sides of the cross-validation.
    """

    numbers: Floats
    laboratories: npt.NDArray[np.str_]
    smears: npt.NDArray[np.str_]


def describe_fields(fields: Iterable[tuple[str, str, UInt8]]) -> DescribedFields:
    """Describe fields; those with nothing on them are left out.

    fields: of each the laboratory, the smear (or, if that is not known, the image), and the pixels
    uint8 [H, W, 3].
    """
    numbers, laboratories, smears = [], [], []
    for laboratory, smear, pixels in fields:
        found = describe_field(measure_field(pixels), (pixels.shape[0], pixels.shape[1]))
        if found is not None:
            numbers.append(found)
            laboratories.append(laboratory)
            smears.append(f"{laboratory}/{smear}")
    return DescribedFields(
        numbers=np.array(numbers).reshape(-1, len(FIELD_FEATURES)),
        laboratories=np.array(laboratories, np.str_),
        smears=np.array(smears, np.str_),
    )


def fit_familiarity(
    described: DescribedFields, *, false_alarms: float = 0.02, seed: int = 0
) -> FamiliaritySettings:
    """Return a pack's statistics of the fields that it is trained on, and the threshold.

    The mean is over laboratories; the covariance is the mean within them and that between their
    means. The threshold is the distance that a share `false_alarms` of the fields exceed, each
    measured by statistics without its smear.

    Raises UsageError with fewer than 50 fields.
    """
    count = len(described.numbers)
    if count < FEWEST_FIELDS:
        raise UsageError(
            f"an unfamiliar field is recognized by at least {FEWEST_FIELDS} familiar ones (got "
            f"{count}); add some to the training"
        )
    names, smear = np.unique(described.smears, return_inverse=True)
    fold = np.random.default_rng(seed).integers(0, _FOLDS, len(names))[smear]
    distances = np.zeros(count)
    for number in np.unique(fold):
        judged = fold == number
        if judged.all():
            raise UsageError("all fields are of one smear; add others to the training")
        model = Familiarity(
            _statistics(described.numbers[~judged], described.laboratories[~judged])
        )
        distances[judged] = [model.distance(row) for row in described.numbers[judged]]
    threshold = float(np.quantile(distances, 1 - false_alarms))
    fitted = _statistics(described.numbers, described.laboratories)
    strange = distances > threshold
    return fitted.model_copy(
        update={
            "threshold": round(threshold, 4),
            "false_alarms": round(float(strange.mean()), 4),
        }
    )


def choose_uncovered_above(
    uncovered: Floats, laboratories: Names, *, false_alarms: float = 0.02
) -> float:
    """Return the share of uncovered foreground that a share `false_alarms` of held-out fields
    exceed, every laboratory having the same weight.

    uncovered: float64 [F], of the pack's own results on fields that it was not trained on.
    """
    if not len(uncovered):
        raise UsageError("no held-out field has foreground to choose uncovered_above by; add some")
    return round(_balanced_quantile(uncovered, np.asarray(laboratories), 1 - false_alarms), 4)


@dataclass(frozen=True, kw_only=True)
class UnsureChoice:
    """Hold a choice of unsure_below.

    below: the threshold of the likeliest type's probability.
    unsure: the largest share of any laboratory's regions under it.
    caught: share of the wrong regions under it.
    """

    below: float
    unsure: float
    caught: float


def choose_unsure_below(
    likeliest: npt.NDArray[np.floating[Any]],
    wrong: Mask,
    laboratories: Names,
    *,
    catch: float = 0.5,
    most_unsure: float = 0.08,
) -> UnsureChoice:
    """Choose the lowest threshold that catches a share of the errors, without marking too many.

    likeliest: [R], of each held-out region the probability of its likeliest type, as the engine has
        it.
    wrong: bool [R], whether that type is wrong; False where it is not known.
    laboratories: R names.
    catch: share of the wrong regions to mark unsure. most_unsure: share of the regions of any
        laboratory that may be marked, which takes precedence.
    """
    if not len(likeliest):
        raise UsageError("no held-out region to choose unsure_below by; hold some out")
    values = np.asarray(likeliest, np.float64)
    names = np.asarray(laboratories)
    of_each = [values[names == name] for name in np.unique(names)]
    # A region under the threshold is unsure: at the k-th lowest value, k regions are.
    most = min(float(np.sort(own)[int(most_unsure * len(own))]) for own in of_each)
    below = most
    if wrong.any():
        errors = np.sort(values[wrong])
        place = min(int(np.ceil(catch * len(errors))), len(errors) - 1)
        below = min(most, float(errors[place]))
    below = float(np.floor(below * 1e4) / 1e4)
    return UnsureChoice(
        below=below,
        unsure=max(float((own < below).mean()) for own in of_each),
        caught=float((values[wrong] < below).mean()) if wrong.any() else float("nan"),
    )


def calling_rates(
    called: Mask, abnormal: Mask, smears: Names, laboratories: Names
) -> tuple[Rate, Rate]:
    """Return sensitivity and specificity of calls on held-out regions, for CallerSettings.

    Regions of one smear are alike, and so are those of one laboratory: the number of trials is that
    of independent regions which would leave as much doubt as these do (Kish 1965, Survey Sampling,
    section 8.2), by smear or by laboratory, whichever leaves more.

    called, abnormal: bool [R], as the pack calls each region without having seen its smear, and the
    truth. smears, laboratories: R names.

    Raises UsageError without normal or without abnormal regions.
    """
    if not abnormal.any() or abnormal.all():
        raise UsageError(
            "sensitivity and specificity need held-out regions of both kinds, normal and abnormal; "
            "raise --validation-share"
        )
    own = np.char.add(np.char.add(np.asarray(laboratories, np.str_), "/"), np.asarray(smears))
    clusters = (own, np.asarray(laboratories, np.str_))
    return (
        _rate(called[abnormal], [names[abnormal] for names in clusters]),
        _rate(~called[~abnormal], [names[~abnormal] for names in clusters]),
    )


def _rate(right: Mask, clusters: Sequence[npt.NDArray[np.str_]]) -> Rate:
    trials = min(_independent(right, names) for names in clusters)
    successes = round(float(right.mean()) * trials)
    return Rate(value=successes / trials, successes=successes, trials=trials)


def _independent(right: Mask, names: npt.NDArray[np.str_]) -> int:
    """Return how many independent regions leave as much doubt about the share of right ones."""
    total, share = len(right), float(right.mean())
    _, cluster = np.unique(names, return_inverse=True)
    sizes = np.bincount(cluster)
    count = len(sizes)
    if count < 2:
        return total
    excess = np.bincount(cluster, right) - share * sizes
    variance = count / (count - 1) * float((excess**2).sum()) / total**2
    if variance <= 0:
        return total
    return int(np.clip(round(share * (1 - share) / variance), 1, total))


def _statistics(numbers: Floats, laboratories: npt.NDArray[np.str_]) -> FamiliaritySettings:
    """Return mean and precision, with a threshold of 1."""
    width = numbers.shape[1]
    groups = [numbers[laboratories == name] for name in np.unique(laboratories)]
    means = np.array([group.mean(axis=0) for group in groups])
    large = [group for group in groups if len(group) > width] or [numbers]
    covariance = np.mean([np.cov(group.T) for group in large], axis=0)
    if len(groups) > 1:
        covariance = covariance + np.cov(means.T)
    spread = np.maximum(np.diag(covariance), _LEAST_SPREAD**2)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.diag(spread)
    precision = np.linalg.inv(covariance)
    precision = (precision + precision.T) / 2
    return FamiliaritySettings(
        mean=tuple(_rounded(means.mean(axis=0))),
        precision=tuple(tuple(_rounded(row)) for row in precision),
        threshold=1.0,
    )


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _balanced_quantile(values: Floats, laboratories: npt.NDArray[np.str_], q: float) -> float:
    """Return a quantile of values, every laboratory having the same weight."""
    _, index, counts = np.unique(laboratories, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    weight = np.cumsum(1 / counts[index][order]) / len(counts)
    place = min(int(np.searchsorted(weight, q)), len(values) - 1)
    return float(values[order][place])
