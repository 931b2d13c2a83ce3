"""Note in a pack how it was trained on a collection of laboratories, and on whose pictures."""

from __future__ import annotations

from collections.abc import Sequence

from rbc_engine.training.datasets.laboratories.collection import DatasetEntry
from rbc_engine.training.datasets.laboratories.leaks import HELD_OUT_NOTE, LABORATORIES_NOTE
from rbc_engine.training.fit.cell_types.training_options import TypeTraining
from rbc_engine.training.fit.steps.option_notes import START
from rbc_engine.training.packing.draft import checkout_commit
from rbc_engine.training.workspace import Workspace

__all__ = ["collection_notes"]


def collection_notes(
    workspace: Workspace,
    entries: Sequence[DatasetEntry],
    classifier: TypeTraining,
    *,
    dataset: str,
    fields: int,
    seed: int,
) -> dict[str, str | int | float | bool]:
    """Return the manifest's notes. Folders have no place in them: they are the user's own.

    dataset: name of the typed one. fields: number of fields trained on.
    """
    data = workspace.options("data")
    detector = workspace.options("detector")
    stages = ",".join(f"{patch_px}:{patches}" for patch_px, patches in classifier.stages)
    common = (
        f"--collection {data['collection']} --data DIR --work DIR --seed {seed} "
        f"--split-seed {data['seed']} --validation-share {data['validation_share']:g}"
    )
    notes: dict[str, str | int | float | bool] = {
        "dataset": dataset,
        LABORATORIES_NOTE: ", ".join(e.name for e in entries if e.format != "chula12"),
        HELD_OUT_NOTE: data["validation_share"] > 0,
        "attribution": "; ".join(entry.attribution for entry in entries),
        "detector_command": (
            f"rbc-engine train detector {common} --steps {detector['steps']} "
            f"--detector-trunk {detector['trunk']}"
        ),
        "classifier_command": (
            f"rbc-engine train classifier {common} --stages {stages} "
            f"--classifier-trunk {classifier.trunk} --learning-rate "
            f"{classifier.learning_rate:g} --batch {classifier.batch}"
        ),
        "seed": seed,
        "fields": fields,
        "held_out_smear_groups": ", ".join(data["validation_groups"]),
    }
    for network in ("detector", "classifier"):
        if sha256 := workspace.options(network).get(START):
            notes[f"{network}_started_from_sha256"] = sha256
    if commit := checkout_commit():
        notes["commit"] = commit
    return notes
