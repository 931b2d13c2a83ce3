"""A training on the laboratories of a collection: what is held out of each, and the networks made from the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torchvision.models.detection import FasterRCNN

from rbc_engine.errors import UsageError
from rbc_engine.packs.pack import MANIFEST_NAME, Pack, shipped_packs
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.choose import held_out_fields
from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.datasets.laboratories.collection import DatasetEntry, find_collection
from rbc_engine.training.datasets.laboratories.load import is_held_out, load_fields
from rbc_engine.training.datasets.split import SPLITS, check_sides, split_fields
from rbc_engine.training.fit.cells.options import CellDetectorTraining
from rbc_engine.training.fit.cells.train import load_cell_detector, train_cell_detector
from rbc_engine.training.fit.steps.devices import CPU
from rbc_engine.training.fit.steps.options import (
    START,
    as_tuples,
    check_choice,
    given,
    noted_options,
)
from rbc_engine.training.networks.imagenet import TrunkWeights
from rbc_engine.training.networks.models import DetectorTrunk
from rbc_engine.training.packing.cell_recipe import CELL_KINDS, CELL_RECIPE
from rbc_engine.training.presets import CELL_DETECTOR_PRESETS
from rbc_engine.training.recipes import PackRecipe
from rbc_engine.training.workspace import Workspace

__all__ = ["CollectionPlan"]

Log = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class CollectionPlan:
    """See `open`.

    entries: the laboratories that are trained on.
    train, held_out: fields of all of them; of the typed one, no smear is on both sides.
    typed: the dataset whose regions have types; None where no laboratory of the collection has any.
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
        threads: int,
        validation_share: float,
        split: str = "smears",
        device: torch.device = CPU,
        log: Log,
    ) -> CollectionPlan:
        """Reads the laboratories, holds some of each out, and checks that `work` was begun with the same.

        collection: see find_collection. only, without: see Collection.to_train.
        validation_share: of the typed dataset's smears; of the other laboratories' images one in `held_out_one_in` is
            held out, or none where the share is 0.
        split: one of SPLITS, of the typed dataset. Sets torch's threads, for the whole process.

        Raises UsageError for a dataset that may not be trained on, for faulty data, a split with an empty side, and
        another `work`.
        """
        check_choice("--split", split, SPLITS)
        described = find_collection(collection)
        entries = described.to_train(only=only, without=without)
        torch.set_num_threads(threads)
        workspace = Workspace(work)
        for entry in described.dataset:
            if entry.use == "measure":
                log(
                    f"{entry.name} is marked measure-only (licence: {entry.licence}): not trained on"
                )
        loaded = load_fields(entries, data, threads=threads, log=log)
        judges: set[Path] = set()
        trains: set[Path] = set()
        smears: set[str] = set()
        if loaded.typed is not None:
            learn, judge = split_fields(
                loaded.typed, split=split, validation_share=validation_share, seed=seed
            )
            check_sides(learn, judge, validation_share=validation_share, seed=seed)
            judges = {field.path for field in judge}
            trains = {field.path for field in learn}
            smears = {f.group for f in judge} - {f.group for f in learn}
        by_name = {entry.name: entry for entry in entries}
        train, held_out = [], []
        for field in loaded.fields:
            entry = by_name[field.laboratory]
            if field.labels is None and validation_share > 0 and is_held_out(entry, field.group):
                held_out.append(field)
            elif field.labels is None or field.path in trains:
                train.append(field)
            elif field.path in judges:
                held_out.append(field)
        workspace.begin(
            "data",
            {
                "format": "collection",
                "collection": described.name,
                "datasets": [_noted(entry) for entry in entries],
                "seed": seed,
                "validation_share": validation_share,
                "split": split,
                "validation_groups": sorted(smears),
                "validation_images": sorted(map(_image_name, held_out)),
            },
        )
        for entry in entries:
            counts = [sum(f.laboratory == entry.name for f in side) for side in (train, held_out)]
            log(f"{entry.name}: {counts[0]} fields to train on, {counts[1]} held out")
        return cls(
            recipe=CELL_RECIPE,
            entries=entries,
            typed=loaded.typed,
            train=tuple(train),
            held_out=tuple(held_out),
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
        """Trains the detector of cells, or goes on. None leaves what the preset has.

        start: the folder of another training, or of a pack, with whose detector this one begins.
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

    def trained_detector(self) -> FasterRCNN:
        """Loads the detector of a finished training. Raises UsageError if it is not finished."""
        options = self.workspace.options("detector")
        options.pop(START, None)
        return load_cell_detector(
            self.workspace.checkpoint("detector"),
            kinds=CELL_KINDS,
            settings=self.recipe.detector,
            training=CellDetectorTraining(**as_tuples(options)),
        )

    def _start(self, folder: Path | None, network: str) -> Path | Pack | None:
        """A pack, or the checkpoint of another training. Raises UsageError if it saw an image held out here."""
        if folder is None:
            return None
        mine = {_image_name(field) for field in self.held_out}
        start: Path | Pack
        shipped = shipped_packs().get(str(folder))
        if shipped is not None or (folder / MANIFEST_NAME).is_file():
            start = Pack.open(shipped or folder)
            seen = self._seen_by_pack(start)
        else:
            start = Workspace(folder).checkpoint(network)
            seen = _seen_by_training(Workspace(folder), mine)
        if leaked := sorted(mine & seen):
            raise UsageError(
                f"--start-from {folder} was trained on {len(leaked)} images that are held out here "
                f"({', '.join(leaked[:3])}{', ...' if len(leaked) > 3 else ''}); use its --seed, --split and "
                f"--validation-share"
            )
        if isinstance(start, Path) and not start.is_file():
            raise UsageError(
                f"--start-from {folder} has no {start.name}; name the folder of a training that wrote one, or a pack"
            )
        return start

    def _seen_by_pack(self, pack: Pack) -> set[str]:
        """Images held out here that the pack may have been trained on."""
        notes = pack.manifest.training
        seen = set()
        typed = self.typed
        if typed is not None and notes.get("dataset") == typed.name:
            unseen = {field.path for field in held_out_fields(pack, typed)}
            seen |= {
                _image_name(f)
                for f in self.held_out
                if f.labels is not None and f.path not in unseen
            }
        there = str(notes.get("laboratories", "")).split(", ")
        if not notes.get("held_out_images_of_laboratories", False):
            seen |= {
                _image_name(f) for f in self.held_out if f.labels is None and f.laboratory in there
            }
        return seen


def _seen_by_training(workspace: Workspace, mine: Iterable[str]) -> set[str]:
    data = workspace.options("data")
    unseen = set(data["validation_images"])
    if "datasets" not in data:  # of a training on one dataset, whose images have plain names
        return {name for name in mine if "/" not in name} - unseen
    there = {entry["name"] for entry in data["datasets"]}
    return {name for name in mine if name.partition("/")[0] in there or "/" not in name} - unseen


def _image_name(field: CellField) -> str:
    """Of the typed dataset the name alone, as in a training on that dataset only."""
    return field.path.name if field.labels is not None else f"{field.laboratory}/{field.path.name}"


def _noted(entry: DatasetEntry) -> dict[str, Any]:
    """What of an entry changes the training."""
    return entry.model_dump(mode="json", exclude={"attribution", "licence", "path"})
