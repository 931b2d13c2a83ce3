"""Train on the laboratories of a collection: hold out a part of each, and make the networks from
the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torchvision.models.detection import FasterRCNN

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.datasets.laboratories.collection import DatasetEntry, find_collection
from rbc_engine.training.datasets.laboratories.load import load_fields
from rbc_engine.training.datasets.laboratories.sides import image_name, split_laboratories
from rbc_engine.training.datasets.split import SPLITS
from rbc_engine.training.earlier_networks import find_start, load_teacher, type_training
from rbc_engine.training.fit.cell_types.draws import TypeDraws
from rbc_engine.training.fit.cell_types.examples import Examples, gather_examples, normal_type
from rbc_engine.training.fit.cell_types.teachers import Teachers
from rbc_engine.training.fit.cell_types.train import load_type_classifier, train_type_classifier
from rbc_engine.training.fit.cell_types.training_options import (
    SOFT_WEIGHT,
    UNLABELLED_SHARE,
    TypeTraining,
)
from rbc_engine.training.fit.cells.train import load_cell_detector, train_cell_detector
from rbc_engine.training.fit.cells.training_options import CELL_CANVAS_PX, CellDetectorTraining
from rbc_engine.training.fit.steps.devices import CPU
from rbc_engine.training.fit.steps.option_notes import (
    START,
    as_tuples,
    check_choice,
    check_stages,
    given,
    noted_options,
)
from rbc_engine.training.networks.imagenet import TrunkWeights
from rbc_engine.training.networks.models import Classifier, ClassifierTrunk, DetectorTrunk
from rbc_engine.training.packing.assemble_cells import CellTraining, assemble_cell_pack
from rbc_engine.training.packing.cell_recipe import (
    CELL_KINDS,
    CELL_RECIPE,
    classifier_settings,
)
from rbc_engine.training.packing.collection_notes import collection_notes
from rbc_engine.training.presets import CELL_DETECTOR_PRESETS, TYPE_CLASSIFIER_PRESETS
from rbc_engine.training.recipes import PackRecipe
from rbc_engine.training.workspace import Workspace

__all__ = ["CollectionPlan"]

Log = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class CollectionPlan:
    """Hold a training on a collection; see `open`.

    entries: the laboratories used for training.
    train, held_out: fields of all of them; no smear of the typed one is on both sides.
    typed: the dataset whose regions have types; None if no laboratory of the collection has any.
    """

    recipe: PackRecipe
    entries: tuple[DatasetEntry, ...]
    typed: Dataset | None
    train: tuple[CellField, ...]
    held_out: tuple[CellField, ...]
    workspace: Workspace
    seed: int
    device: torch.device
    log: Log

    @classmethod
    def open(
        cls,
        data: Path,
        work: Path,
        *,
        collection: str,
        only: Sequence[str] = (),
        without: Sequence[str] = (),
        seed: int,
        split_seed: int | None = None,
        threads: int,
        validation_share: float,
        split: str = "smears",
        device: torch.device = CPU,
        log: Log,
    ) -> CollectionPlan:
        """Read the laboratories, hold some of each out, and check that `work` was started with the
        same.

        collection: see find_collection. only, without: see Collection.to_train.
        validation_share: of the typed dataset's smears; of the other laboratories' images one in
            `held_out_one_in` is held out, or none if the share is 0.
        split: one of SPLITS, of the typed dataset. split_seed: which smears it holds out; None for
        `seed`.

        Sets torch's threads, for the whole process.

        Raises UsageError for a dataset that must not be trained on, for faulty data, a split with
        an empty side, and another `work`.
        """
        check_choice("--split", split, SPLITS)
        described = find_collection(collection)
        entries = described.to_train(only=only, without=without)
        torch.set_num_threads(threads)
        workspace = Workspace(work)
        for entry in described.dataset:
            if entry.use == "measure":
                log(
                    f"{entry.name} is marked measure-only (licence: {entry.licence}): not trained "
                    "on"
                )
        loaded = load_fields(entries, data, threads=threads, log=log)
        dealt_by = seed if split_seed is None else split_seed
        sides = split_laboratories(
            loaded, split=split, validation_share=validation_share, seed=dealt_by
        )
        workspace.begin(
            "data",
            {
                "format": "collection",
                "collection": described.name,
                "datasets": [_noted(entry) for entry in entries],
                "seed": dealt_by,
                "validation_share": validation_share,
                "split": split,
                "validation_groups": sides.smears,
                "validation_images": sorted(map(image_name, sides.held_out)),
            },
        )
        if loaded.typed is not None:
            workspace.begin(
                "recipe",
                {
                    "types": loaded.typed.types,
                    "abnormal": loaded.typed.abnormal,
                    "short_side_px": CELL_RECIPE.detector.short_side_px,
                    "window_canvas_px": CELL_RECIPE.classifier.window_canvas_px,
                },
            )
        for entry in entries:
            counts = [
                sum(f.laboratory == entry.name for f in side)
                for side in (sides.train, sides.held_out)
            ]
            log(f"{entry.name}: {counts[0]} fields to train on, {counts[1]} held out")
        return cls(
            recipe=CELL_RECIPE,
            entries=entries,
            typed=loaded.typed,
            train=sides.train,
            held_out=sides.held_out,
            workspace=workspace,
            seed=seed,
            device=device,
            log=log,
        )

    def train_detector(
        self,
        *,
        preset: str = "best",
        steps: int | None = None,
        trunk: str | None = None,
        trunk_weights: str = "scratch",
        bf16: bool = False,
        start: Path | None = None,
    ) -> None:
        """Train the detector of cells, or resume. None keeps the preset's value.

        start: the folder of another training, or a pack, whose detector is fine-tuned.
        """
        check_choice("--preset", preset, tuple(CELL_DETECTOR_PRESETS))
        check_choice("--detector-trunk", trunk, get_args(DetectorTrunk))
        check_choice("--trunk-weights", trunk_weights, get_args(TrunkWeights))
        training = replace(
            CELL_DETECTOR_PRESETS[preset],
            seed=self.seed,
            bf16=bf16,
            **given(steps=steps, trunk=trunk),
        )
        begin = self._start(start, "detector")
        self.workspace.begin("detector", noted_options(training, begin))
        train_cell_detector(
            self.train,
            self.entries,
            kinds=CELL_KINDS,
            settings=self.recipe.detector,
            training=training,
            checkpoint=self.workspace.checkpoint("detector"),
            start=begin,
            trunk_weights=cast(TrunkWeights, trunk_weights),
            device=self.device,
            log=self.log,
        )

    def train_classifier(
        self,
        *,
        preset: str = "best",
        stages: tuple[tuple[int, int], ...] | None = None,
        trunk: str | None = None,
        trunk_weights: str = "scratch",
        learning_rate: float | None = None,
        batch: int | None = None,
        bf16: bool = False,
        frozen_norms: bool | None = None,
        start: Path | None = None,
        teachers: Sequence[Path] = (),
        soft_weight: float | None = None,
    ) -> None:
        """Train the classifier of the typed dataset's types, or resume. None keeps the preset's
        value.

        start: as in train_detector. teachers: the folders of finished trainings, whose mean
            probabilities are targets for every cell, labelled or not. soft_weight: their weight
            relative to a label.

        Raises UsageError if no dataset has types, and for a teacher that saw an image held out
        here.
        """
        check_choice("--preset", preset, tuple(TYPE_CLASSIFIER_PRESETS))
        check_choice("--classifier-trunk", trunk, get_args(ClassifierTrunk))
        check_choice("--trunk-weights", trunk_weights, get_args(TrunkWeights))
        typed = self._typed()
        if soft_weight is not None and not teachers:
            raise UsageError(
                "--soft-weight is the weight of a teacher's probabilities: name one with --teacher"
            )
        distilled = {"soft_weight": SOFT_WEIGHT, "unlabelled_share": UNLABELLED_SHARE}
        chosen = given(
            stages=stages,
            trunk=trunk,
            learning_rate=learning_rate,
            batch=batch,
            frozen_norms=frozen_norms,
            **(distilled if teachers else {}),
        ) | given(soft_weight=soft_weight)
        training = replace(TYPE_CLASSIFIER_PRESETS[preset], seed=self.seed, bf16=bf16, **chosen)
        check_stages(training.stages, batch=training.batch)
        begin = self._start(start, "classifier")
        settings = classifier_settings(training, types=typed.types)
        loaded = [load_teacher(folder, self.held_out, typed) for folder in teachers]
        options = noted_options(training, begin)
        if teachers:
            options["teachers_sha256"] = [sha256 for _, _, sha256 in loaded]
        self.workspace.begin("classifier", options)
        train_type_classifier(
            self.draws(training),
            types=len(typed.types),
            settings=settings,
            training=training,
            checkpoint=self.workspace.checkpoint("classifier"),
            teachers=Teachers(
                [(model, its_settings) for model, its_settings, _ in loaded],
                student=settings,
                device=self.device,
            )
            if loaded
            else None,
            start=begin,
            trunk_weights=cast(TrunkWeights, trunk_weights),
            device=self.device,
            log=self.log,
        )

    def draws(self, training: TypeTraining) -> TypeDraws:
        """Return the batches of a classifier's training. Raises UsageError if no dataset has
        types.
        """
        typed = self._typed()
        normal = (
            normal_type(typed.types, typed.abnormal)
            if any(entry.healthy for entry in self.entries)
            else 0
        )
        return TypeDraws(
            self._examples(self.train),
            self.train,
            normal=normal,
            settings=classifier_settings(training, types=typed.types),
            training=training,
        )

    def make_pack(self, out: Path, *, name: str | None = None) -> None:
        """Make the pack of two finished trainings.

        name: of the pack; None for that of the recipe.

        Raises UsageError if a training is not finished or nothing is held out.
        """
        typed = self._typed()
        if not self.held_out:
            raise UsageError(
                "temperatures, caller and thresholds are fitted to held-out fields, and there are "
                "none; train with a --validation-share over 0"
            )
        training = type_training(self.workspace)
        classifier, settings = self.trained_classifier()
        recipe = replace(self.recipe, name=name or self.recipe.name, classifier=settings)
        pack = assemble_cell_pack(
            out,
            CellTraining(
                recipe=recipe,
                dataset=typed,
                held_out=self.held_out,
                examples=self._examples(self.held_out),
                stained=self.train,
                frequencies=self.draws(training).frequencies(),
                detector=self.trained_detector(),
                classifier=classifier,
            ),
            seed=self.seed,
            notes=collection_notes(
                self.workspace,
                self.entries,
                training,
                dataset=typed.name,
                fields=len(self.train),
                seed=self.seed,
            ),
            scratch=self.workspace.folder,
            log=self.log,
        )
        for measure, value in pack.manifest.accuracy.items():
            self.log(f"  {measure}: {value}")
        self.log(f"{pack.name} {pack.manifest.version} written to {out}")

    def _examples(self, fields: Sequence[CellField]) -> Examples:
        return gather_examples(
            fields,
            self.entries,
            types=len(self._typed().types),
            short_side_px=self.recipe.detector.short_side_px,
            cell_canvas_px=CELL_CANVAS_PX,
        )

    def trained_classifier(self) -> tuple[Classifier, ClassifierSettings]:
        """Load the classifier of a finished training, without its auxiliary outputs, and the
        settings of its patches.

        Raises UsageError if it is not finished.
        """
        types = self._typed().types
        training = type_training(self.workspace)
        model = load_type_classifier(
            self.workspace.checkpoint("classifier"), types=len(types), training=training
        )
        return model, classifier_settings(training, types=types)

    def _typed(self) -> Dataset:
        if self.typed is None:
            raise UsageError(
                "no dataset of the collection that is trained on has cell types (format chula12), "
                "which the classifier needs; name one"
            )
        return self.typed

    def trained_detector(self) -> FasterRCNN:
        """Load the detector of a finished training. Raises UsageError if it is not finished."""
        options = self.workspace.options("detector")
        options.pop(START, None)
        return load_cell_detector(
            self.workspace.checkpoint("detector"),
            kinds=CELL_KINDS,
            settings=self.recipe.detector,
            training=CellDetectorTraining(**as_tuples(options)),
        )

    def _start(self, folder: Path | None, network: str) -> Path | Pack | None:
        return None if folder is None else find_start(folder, network, self.held_out, self.typed)


def _noted(entry: DatasetEntry) -> dict[str, Any]:
    """Return the part of an entry that changes the training."""
    return entry.model_dump(mode="json", exclude={"attribution", "licence", "path"})
