"""Run one training as a whole: the data, the held-out part, and the three things made from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torchvision.models.detection import FasterRCNN

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.packs.pack import MANIFEST_NAME, Pack, shipped_packs
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.datasets.evaluation_fields import held_out_fields
from rbc_engine.training.datasets.formats.table import check_format, load_dataset
from rbc_engine.training.datasets.split import SPLITS, check_sides, split_fields
from rbc_engine.training.fit.classifier import (
    ClassifierTraining,
    draw_chances,
    load_classifier,
    train_classifier,
)
from rbc_engine.training.fit.detector import DetectorTraining, load_detector, train_detector
from rbc_engine.training.fit.region_set import load_regions
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
from rbc_engine.training.packing.assemble import assemble_final_pack, assemble_pack
from rbc_engine.training.packing.draft import checkout_commit
from rbc_engine.training.presets import CLASSIFIER_PRESETS, DETECTOR_PRESETS
from rbc_engine.training.recipes import PackRecipe, recipe_for
from rbc_engine.training.workspace import Workspace

__all__ = ["TrainingPlan"]

Log = Callable[[str], None]
Notes = dict[str, str | int | float | bool]

# For a type: one without an example is refused before, but a share must always be over 0.
_RAREST = 1e-4


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingPlan:
    """Hold one training; see `open`."""

    recipe: PackRecipe
    dataset: Dataset
    train: Sequence[LabelledField]
    held_out: Sequence[LabelledField]
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
        data_format: str,
        seed: int,
        threads: int,
        validation_share: float,
        split: str = "smears",
        device: torch.device = CPU,
        log: Log,
    ) -> TrainingPlan:
        """Read the data, split it, and check that `work` was started with the same split.

        split: one of SPLITS. Sets torch's threads, for the whole process.

        Raises UsageError for data that are not of this format, a split with an empty side, and
        another `work`.
        """
        check_format(data_format)
        check_choice("--split", split, SPLITS)
        torch.set_num_threads(threads)
        workspace = Workspace(work)
        log(f"reading {data}")
        dataset = load_dataset(data, data_format=data_format, threads=threads)
        for note in dataset.notes:
            log(f"note: {note}")
        recipe = recipe_for(dataset)
        train, held_out = split_fields(
            dataset, split=split, validation_share=validation_share, seed=seed
        )
        check_sides(train, held_out, validation_share=validation_share, seed=seed)
        workspace.begin(
            "data",
            {
                "format": data_format,
                "seed": seed,
                "validation_share": validation_share,
                "split": split,
                "validation_groups": sorted({f.group for f in held_out} - {f.group for f in train}),
                "validation_images": sorted(f.path.name for f in held_out),
            },
        )
        workspace.begin(
            "recipe",
            {
                "types": dataset.types,
                "abnormal": dataset.abnormal,
                "short_side_px": recipe.detector.short_side_px,
                "window_canvas_px": recipe.classifier.window_canvas_px,
            },
        )
        of = "other smears" if split == "smears" else "the same smears"
        log(f"{len(train)} fields to train on, {len(held_out)} of {of} held out")
        return cls(
            recipe=recipe,
            dataset=dataset,
            train=train,
            held_out=held_out,
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
        """Train, or resume. None keeps the preset's value.

        start: the folder of another training, or a pack, whose detector is fine-tuned.
        """
        check_choice("--preset", preset, tuple(DETECTOR_PRESETS))
        check_choice("--detector-trunk", trunk, get_args(DetectorTrunk))
        check_choice("--trunk-weights", trunk_weights, get_args(TrunkWeights))
        chosen = given(steps=steps, trunk=trunk)
        training = replace(DETECTOR_PRESETS[preset], seed=self.seed, bf16=bf16, **chosen)
        begin = self._start(start, "detector")
        if len(self.train) < training.batch:
            raise UsageError(
                f"the detector takes {training.batch} fields at once, and there are "
                f"{len(self.train)} to train on; add images or lower --validation-share"
            )
        self.workspace.begin("detector", noted_options(training, begin))
        train_detector(
            self.train,
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
        start: Path | None = None,
    ) -> None:
        """Train, or resume. None keeps the preset's value; start: as in train_detector."""
        check_choice("--preset", preset, tuple(CLASSIFIER_PRESETS))
        check_choice("--classifier-trunk", trunk, get_args(ClassifierTrunk))
        check_choice("--trunk-weights", trunk_weights, get_args(TrunkWeights))
        chosen = given(stages=stages, trunk=trunk, learning_rate=learning_rate, batch=batch)
        training = replace(CLASSIFIER_PRESETS[preset], seed=self.seed, bf16=bf16, **chosen)
        begin = self._start(start, "classifier")
        check_stages(training.stages, batch=training.batch)
        self.workspace.begin("classifier", noted_options(training, begin))
        train_classifier(
            load_regions(self.train, short_side_px=self.recipe.detector.short_side_px),
            settings=_with_patches_of(training, self.recipe).classifier,
            training=training,
            checkpoint=self.workspace.checkpoint("classifier"),
            start=begin,
            types=self.dataset.types,
            trunk_weights=cast(TrunkWeights, trunk_weights),
            device=self.device,
            log=self.log,
        )

    def _start(self, folder: Path | None, network: str) -> Path | Pack | None:
        """Return a pack, or the checkpoint of another training. Raises UsageError if it saw a smear
        held out here.
        """
        if folder is None:
            return None
        start: Path | Pack
        mine = {field.path.name for field in self.held_out}
        shipped = shipped_packs().get(str(folder))
        if shipped is not None or (folder / MANIFEST_NAME).is_file():
            start = Pack.open(shipped or folder)
            trained_here = start.manifest.training.get("dataset") == self.dataset.name
            unseen = held_out_fields(start, self.dataset) if trained_here else self.held_out
            unseen_there = {field.path.name for field in unseen}
        else:
            other = Workspace(folder)
            unseen_there = set(other.options("data")["validation_images"])
            start = other.checkpoint(network)
        if leaked := mine - unseen_there:
            groups = sorted({f.group for f in self.held_out if f.path.name in leaked})
            raise UsageError(
                f"--start-from {folder} was trained on {len(leaked)} images that are held out here "
                f"(smears {', '.join(groups)}); use its --seed, --split and --validation-share"
            )
        if isinstance(start, Path) and not start.is_file():
            raise UsageError(
                f"--start-from {folder} has no {start.name}; name the folder of a training that "
                "wrote one, or a pack"
            )
        return start

    def make_pack(
        self,
        out: Path,
        *,
        max_false_share: float,
        best_f1: bool = False,
        measured_by: Path | None = None,
        name: str | None = None,
    ) -> None:
        """Make the pack of two finished trainings.

        best_f1: see assemble_pack. name: of the pack; None for that of the recipe.
        measured_by: for a training on all smears, the pack of the one that held some out.

        Raises UsageError if a training is not finished, and if it is not clear where the measures
        come from.
        """
        if (measured_by is None) == (not self.held_out):
            raise UsageError(
                "--measured-by names the pack that lends its accuracy to a training on all smears: "
                "give it with --validation-share 0, and only then (got --measured-by "
                f"{measured_by}, {len(self.held_out)} fields held out)"
            )
        measured = None if measured_by is None else Pack.open(measured_by)
        detector, detector_training, started = self._finished_detector()
        classifier, classifier_training, also_started = self._finished_classifier()
        recipe = _with_patches_of(classifier_training, self.recipe)
        recipe = replace(recipe, name=name or recipe.name)
        notes = self._notes(detector_training, classifier_training) | started | also_started
        if measured is None:
            notes["max_false_share"] = max_false_share
            pack = assemble_pack(
                out,
                recipe=recipe,
                dataset=self.dataset,
                held_out=self.held_out,
                frequencies=self._frequencies(classifier_training),
                detector=detector,
                classifier=classifier,
                seed=self.seed,
                max_false_share=max_false_share,
                best_f1=best_f1,
                notes=notes,
                scratch=self.workspace.folder,
                log=self.log,
            )
        else:
            notes["accuracy_measured_with_smear_groups_held_out"] = measured.manifest.training.get(
                "held_out_smear_groups", ""
            )
            pack = assemble_final_pack(
                out,
                recipe=recipe,
                dataset=self.dataset,
                measured=measured,
                detector=detector,
                classifier=classifier,
                notes=notes,
                scratch=self.workspace.folder,
                log=self.log,
            )
        for name, value in pack.manifest.accuracy.items():
            self.log(f"  {name}: {value}")
        self.log(f"{pack.name} {pack.manifest.version} written to {out}")

    def trained_classifier(self) -> tuple[Classifier, ClassifierSettings]:
        """Return the classifier of a finished training, with the settings of its patches. Raises
        UsageError if not finished.
        """
        classifier, training, _ = self._finished_classifier()
        return classifier, _with_patches_of(training, self.recipe).classifier

    def _frequencies(self, training: ClassifierTraining) -> list[float]:
        """Return how often the classifier's training drew a region with each type."""
        regions = load_regions(self.train, short_side_px=self.recipe.detector.short_side_px)
        chances = draw_chances(regions, training)
        return [max(float(chances @ held), _RAREST) for held in regions.types.T]

    def _finished_detector(self) -> tuple[FasterRCNN, DetectorTraining, Notes]:
        options = self.workspace.options("detector")
        started = _started(options, "detector")
        training = DetectorTraining(**as_tuples(options))
        model = load_detector(
            self.workspace.checkpoint("detector"),
            settings=self.recipe.detector,
            training=training,
        )
        return model, training, started

    def _finished_classifier(self) -> tuple[Classifier, ClassifierTraining, Notes]:
        options = self.workspace.options("classifier")
        started = _started(options, "classifier")
        training = ClassifierTraining(**as_tuples(options))
        model = load_classifier(
            self.workspace.checkpoint("classifier"),
            types=len(self.dataset.types),
            training=training,
        )
        return model, training, started

    def _notes(self, detector: DetectorTraining, classifier: ClassifierTraining) -> Notes:
        """Return the manifest's notes on the training. Folders have no place in it: they are the
        user's own.
        """
        data = self.workspace.options("data")
        stages = ",".join(f"{patch_px}:{patches}" for patch_px, patches in classifier.stages)
        by_image = data["split"] != "smears"
        common = (
            f"--data DIR --work DIR --format {data['format']} --seed {self.seed} "
            "--validation-share "
            f"{data['validation_share']:g}{' --split ' + data['split'] if by_image else ''}"
        )
        notes: Notes = {
            "dataset": self.dataset.name,
            "detector_command": (
                f"rbc-engine train detector {common} --steps {detector.steps} "
                f"--detector-trunk {detector.trunk}{' --bf16' if detector.bf16 else ''}"
            ),
            "classifier_command": (
                f"rbc-engine train classifier {common} --stages {stages} "
                f"--classifier-trunk {classifier.trunk} --learning-rate "
                f"{classifier.learning_rate:g} --batch {classifier.batch}"
                f"{' --bf16' if classifier.bf16 else ''}"
            ),
            "seed": self.seed,
            "fields": len(self.train),
            "held_out_smear_groups": ", ".join(data["validation_groups"]),
        }
        if by_image:
            notes["held_out_images"] = ", ".join(data["validation_images"])
        if commit := checkout_commit():
            notes["commit"] = commit
        return notes


def _started(options: dict[str, Any], network: str) -> Notes:
    """Remove the mark of an earlier training's weights from a network's options, and return it as a
    note.
    """
    sha256 = options.pop(START, None)
    return {} if sha256 is None else {f"{network}_started_from_sha256": sha256}


def _with_patches_of(training: ClassifierTraining, recipe: PackRecipe) -> PackRecipe:
    """Return the recipe with patches of the size of the training's last stage."""
    patch_px = training.stages[-1][0]
    return replace(recipe, classifier=recipe.classifier.model_copy(update={"patch_px": patch_px}))
