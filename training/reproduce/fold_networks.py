"""Train Models A and B of Table 1, cross-validated by smear, fold by fold.

Model A is trained on regions of one and of several cells, and on composed clumps; Model B on
regions of one cell only. Each fold and model has a folder of its own under --work; finished ones
are never computed again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.fit.classifier import ClassifierTraining, predict, train_classifier
from rbc_engine.training.fit.region_set import RegionSet, load_regions
from rbc_engine.training.networks.imagenet import TrunkWeights
from rbc_engine.training.networks.models import ClassifierTrunk
from rbc_engine.training.recipes import PackRecipe
from rbc_engine.training.reproduce.folds import deal_groups, select_regions
from rbc_engine.training.reproduce.held_out import HeldOut
from rbc_engine.training.workspace import Workspace

__all__ = [
    "MODELS",
    "CrossValidation",
    "Model",
    "check_classifier_training",
    "check_trunk_weights",
    "finished_folds",
    "load_held_out",
]

Log = Callable[[str], None]
Model = Literal["A", "B"]
MODELS: tuple[Model, ...] = get_args(Model)


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossValidation:
    """Cross-validate by smear; see `open`.

    images: R names of image files, relative to the dataset's folder, of the R known regions.
    folds: the smear groups held out of each.
    """

    dataset: Dataset
    regions: RegionSet
    images: npt.NDArray[np.str_]
    folds: tuple[tuple[str, ...], ...]
    settings: ClassifierSettings
    training: ClassifierTraining
    trunk_weights: TrunkWeights
    work: Path
    log: Log

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        data: Path,
        work: Path,
        *,
        recipe: PackRecipe,
        folds: int,
        training: ClassifierTraining,
        trunk_weights: TrunkWeights,
        log: Log,
    ) -> CrossValidation:
        """Deal the smears to folds, and check that `work` was started with the same data and
        options.

        data: the dataset's folder. training: of both models, except for their differences; its seed
        deals.

        Raises UsageError for too few smears or labels, wrong options, or another `work`.
        """
        check_classifier_training(training)
        check_trunk_weights(trunk_weights)
        dealt = deal_groups(dataset, folds=folds, seed=training.seed)
        known = [field for field in dataset.fields if field.known.any()]
        regions = load_regions(known, short_side_px=recipe.detector.short_side_px)
        options = asdict(training)
        del options["checkpoint_every_s"]  # it does not change results
        Workspace(work).begin(
            "table1",
            {
                "types": dataset.types,
                "regions_sha256": _digest(regions),
                "folds": dealt,
                "trunk_weights": trunk_weights,
                **options,
            },
        )
        patch_px = training.stages[-1][0]
        return cls(
            dataset=dataset,
            regions=regions,
            images=np.repeat(
                [os.path.relpath(field.path, data) for field in known],
                [int(field.known.sum()) for field in known],
            ),
            folds=dealt,
            settings=recipe.classifier.model_copy(update={"patch_px": patch_px}),
            training=training,
            trunk_weights=trunk_weights,
            work=work,
            log=log,
        )

    def run(self, fold: int, model: Model) -> HeldOut:
        """Return a model's predictions for the regions held out of the fold: from an earlier run,
        or by training it.

        Ctrl-C and a diverging loss are handled as in train_classifier; the same call then resumes.
        """
        if not 0 <= fold < len(self.folds):
            raise UsageError(
                f"--only must be a fold from 0 to {len(self.folds) - 1} (got {fold}); see --folds"
            )
        stored = _stored(self.work, fold, model)
        if stored.is_file():
            self.log(f"fold {fold}, model {model}: finished before, {stored}")
            return HeldOut.load(stored)
        in_fold = np.isin(self.regions.groups, self.folds[fold])
        single = self.regions.cells == 1
        trained_on = ~in_fold if model == "A" else ~in_fold & single
        training = self.training if model == "A" else replace(self.training, clump_share=0.0)
        if not (~in_fold & single).any():
            raise UsageError(
                f"fold {fold} has no region of a single cell to train on; label more smears, or "
                "lower --folds"
            )
        self.log(
            f"fold {fold}, model {model}: training on {trained_on.sum()} regions, {in_fold.sum()} "
            "held out"
        )
        classifier = train_classifier(
            select_regions(self.regions, trained_on),
            settings=self.settings,
            training=training,
            checkpoint=stored.with_name("classifier.pt"),
            trunk_weights=self.trunk_weights,
            log=self.log,
        )
        held_out = select_regions(self.regions, in_fold)
        learnt = self.regions.types[~in_fold & single].any(axis=0)
        result = HeldOut(
            images=self.images[in_fold],
            groups=held_out.groups,
            boxes=held_out.boxes,
            cells=held_out.cells,
            types=held_out.types,
            probabilities=predict(classifier, held_out, settings=self.settings),
            learnt=np.tile(learnt, (len(held_out), 1)),
        )
        result.save(stored)
        return result


def finished_folds(work: Path, *, folds: int) -> list[int]:
    """Return the folds of which both models are finished."""
    return [
        fold
        for fold in range(folds)
        if all(_stored(work, fold, model).is_file() for model in MODELS)
    ]


def load_held_out(work: Path, *, folds: list[int], model: Model) -> HeldOut:
    """Read a model's predictions for the regions held out of finished folds."""
    return HeldOut.joined([HeldOut.load(_stored(work, fold, model)) for fold in folds])


def check_classifier_training(training: ClassifierTraining) -> None:
    """Raise UsageError for an option that a user may have given wrong."""
    _check_choice("--trunk", training.trunk, ClassifierTrunk)
    for patch_px, patches in training.stages:
        if patch_px < 16 or patches < training.batch:
            raise UsageError(
                f"--stages needs patches of at least 16 px, and at least {training.batch} of them "
                f"(got {patch_px}:{patches})"
            )


def check_trunk_weights(trunk_weights: str) -> None:
    """Refuse 'auto', which depends on the network: all models of a table must start alike."""
    _check_choice("--trunk-weights", trunk_weights, Literal["scratch", "imagenet"])


def _check_choice(option: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise UsageError(f"{option} must be one of {', '.join(get_args(choices))} (got {value!r})")


def _stored(work: Path, fold: int, model: Model) -> Path:
    return work / f"fold-{fold}" / f"model-{model.lower()}" / "held-out.npz"


def _digest(regions: RegionSet) -> str:
    """Return a digest of all training and test data."""
    digest = hashlib.sha256()
    for array in (
        regions.boxes,
        regions.types,
        regions.cells,
        regions.frame_index,
        *regions.frames,
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\n".join(regions.groups).encode())
    return digest.hexdigest()
