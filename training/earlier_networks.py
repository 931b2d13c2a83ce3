"""Find the networks of earlier trainings and packs that a training on a collection starts from or
learns from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.packs.pack import MANIFEST_NAME, Pack, shipped_packs
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.datasets.laboratories.leaks import seen_by_pack, seen_by_training
from rbc_engine.training.fit.cell_types.train import load_type_classifier
from rbc_engine.training.fit.cell_types.training_options import TypeTraining
from rbc_engine.training.fit.steps.option_notes import START, as_tuples
from rbc_engine.training.networks.models import Classifier
from rbc_engine.training.packing.cell_recipe import classifier_settings
from rbc_engine.training.workspace import Workspace

__all__ = ["find_start", "load_teacher", "type_training"]


def find_start(
    folder: Path, network: str, held_out: Sequence[CellField], typed: Dataset | None
) -> Path | Pack:
    """Return the pack, or the checkpoint of the earlier training, that --start-from names.

    network: detector or classifier. held_out: fields held out now. typed: the dataset with types.

    Raises UsageError if it saw one of these, or has no such network.
    """
    shipped = shipped_packs().get(str(folder))
    if shipped is None and not (folder / MANIFEST_NAME).is_file():
        return _checkpoint(folder, network, held_out, option="--start-from")
    pack = Pack.open(shipped or folder)
    _check_unseen(seen_by_pack(pack, held_out, typed), folder, option="--start-from")
    return pack


def load_teacher(
    folder: Path, held_out: Sequence[CellField], typed: Dataset
) -> tuple[Classifier, ClassifierSettings, str]:
    """Return a teacher with all its outputs, the settings of its patches, and the sha256 of its
    checkpoint.

    Raises UsageError if it saw one of `held_out`, or its outputs are others.
    """
    path = _checkpoint(folder, "classifier", held_out, option="--teacher")
    workspace = Workspace(folder)
    types = tuple(workspace.options("recipe")["types"])
    if types != typed.types or workspace.options("data")["format"] != "collection":
        raise UsageError(
            f"--teacher {folder} has other outputs than this training: it must be trained on a "
            f"collection, with the types {', '.join(typed.types)} (got {', '.join(types)})"
        )
    training = type_training(workspace)
    model = load_type_classifier(path, types=len(types), training=training, auxiliary=True)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return model, classifier_settings(training, types=types), sha256


def type_training(workspace: Workspace) -> TypeTraining:
    """Return the options of a classifier's training."""
    options = workspace.options("classifier")
    for note in (START, "teachers_sha256"):
        options.pop(note, None)
    return TypeTraining(**as_tuples(options))


def _checkpoint(folder: Path, network: str, held_out: Sequence[CellField], *, option: str) -> Path:
    other = Workspace(folder)
    checkpoint = other.checkpoint(network)
    _check_unseen(seen_by_training(other.options("data"), held_out), folder, option=option)
    if not checkpoint.is_file():
        packs = ", or a pack" if option == "--start-from" else ""
        raise UsageError(
            f"{option} {folder} has no {checkpoint.name}; name the folder of a training that wrote "
            f"one{packs}"
        )
    return checkpoint


def _check_unseen(leaked: Sequence[str], folder: Path, *, option: str) -> None:
    if leaked:
        raise UsageError(
            f"{option} {folder} was trained on {len(leaked)} images that are held out here "
            f"({', '.join(leaked[:3])}{', ...' if len(leaked) > 3 else ''}); use its "
            f"--split-seed, --split and --validation-share"
        )
