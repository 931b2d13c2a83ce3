"""Train the caller: gradient boosting from a region's probabilities to whether any of its cells is
abnormal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import treelite
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from rbc_engine.errors import UsageError
from rbc_engine.training.fit.temperature import fit_temperature, tempered
from rbc_engine.types.arrays import Float32

__all__ = ["CallerReport", "train_caller"]

_MOST_FOLDS = 5
_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class CallerReport:
    """Report cross-validated accuracy: every region was called by a caller that saw no region of
    its smear.

    accuracy: at a threshold of 0.5.
    auc: area under the ROC curve.
    temperature: by which the trees' sum is divided.
    abnormal_p: float64 [R], of each region.
    """

    accuracy: float
    auc: float
    temperature: float
    regions: int
    folds: int
    abnormal_p: npt.NDArray[np.float64]


def train_caller(
    probabilities: Float32,
    abnormal: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.str_],
    *,
    seed: int,
    weights: npt.NDArray[np.float64] | None = None,
) -> tuple[bytes, CallerReport]:
    """Train on regions that the classifier was not trained on: on others its probabilities are too
    good.

    probabilities: float32 [R, T], 0..1, as the engine hands them to the caller.
    abnormal: bool [R], whether any type of the region is abnormal.
    groups: R smear groups.
    weights: float64 [R], over 0; None for equal ones. The accuracy is that of regions of weight 1.

    The calls of regions with their smear left out set a temperature, so that abnormal_p is
    calibrated.

    Returns the treelite checkpoint, and its accuracy. Raises UsageError if the regions are too few
    or too alike to measure it, ValueError if treelite's results are not those of scikit-learn.
    """
    folds = min(_MOST_FOLDS, len(np.unique(groups)))
    if folds < 2:
        raise UsageError(
            f"the caller needs labelled regions of at least 2 held-out smears (got {folds}); "
            f"raise --validation-share or label more smears"
        )
    if weights is None:
        weights = np.ones(len(abnormal))
    out_of_fold = np.zeros(len(abnormal))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, held_out in splitter.split(probabilities, abnormal, groups):
        if len(np.unique(abnormal[train])) < 2:
            raise UsageError(
                "without some of the held-out smears, all labelled regions are normal or all are "
                "abnormal, and the caller needs both; raise --validation-share or label more smears"
            )
        model = _fit(probabilities[train], abnormal[train], weights[train], seed)
        out_of_fold[held_out] = model.predict_proba(probabilities[held_out])[:, 1]
    own = weights == 1
    temperature = fit_temperature(out_of_fold[own], abnormal[own])
    report = CallerReport(
        accuracy=float(((out_of_fold >= 0.5) == abnormal)[own].mean()),
        auc=float(roc_auc_score(abnormal[own], out_of_fold[own])),
        temperature=temperature,
        regions=int(own.sum()),
        folds=folds,
        abnormal_p=tempered(out_of_fold[:, None], np.array([temperature]))[:, 0].astype(np.float64),
    )
    model = _fit(probabilities, abnormal, weights, seed)
    carried = treelite.sklearn.import_model(model)
    _check_same(carried.serialize_bytes(), model, probabilities)
    carried.get_header_accessor().set_field(
        "sigmoid_alpha", np.array([1.0 / temperature], np.float32)
    )
    checkpoint: bytes = carried.serialize_bytes()
    return checkpoint, report


def _fit(
    probabilities: Float32,
    abnormal: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float64],
    seed: int,
) -> GradientBoostingClassifier:
    # Few and small trees: regions of one smear are alike, and larger ones overfit to the smears.
    model = GradientBoostingClassifier(
        n_estimators=30, max_depth=1, min_samples_leaf=0.02, subsample=0.5, random_state=seed
    )
    return model.fit(probabilities, abnormal, sample_weight=weights)


def _check_same(
    checkpoint: bytes, model: GradientBoostingClassifier, probabilities: Float32
) -> None:
    restored = treelite.Model.deserialize_bytes(checkpoint)
    got = treelite.gtil.predict(restored, probabilities).reshape(len(probabilities), -1)[:, -1]
    difference = float(np.abs(got - model.predict_proba(probabilities)[:, 1]).max())
    if not difference <= _TOLERANCE:
        raise ValueError(
            f"treelite's results differ from scikit-learn's by {difference:.2g}, more than "
            f"{_TOLERANCE:g}; install versions of treelite and scikit-learn that fit together"
        )
