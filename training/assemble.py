"""From two finished trainings to a pack: export, train the caller, choose the operating point, measure, write."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torchvision.models.detection import FasterRCNN

import rbc_engine
from rbc_engine.engine import Engine
from rbc_engine.errors import RbcError, UsageError
from rbc_engine.golden import encode_golden
from rbc_engine.manifest import SCHEMA, Manifest
from rbc_engine.pack import Pack
from rbc_engine.training import metrics
from rbc_engine.training.caller import CallerReport, train_caller
from rbc_engine.training.classifier import predict
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.evaluate import Findings, analyze_fields, measure
from rbc_engine.training.export import export_classifier, export_detector
from rbc_engine.training.models import Classifier
from rbc_engine.training.patches import load_regions
from rbc_engine.training.recipes import PackRecipe
from rbc_engine.training.release import file_records, make_golden, write_pack
from rbc_engine.types import Regions, UInt8

__all__ = ["assemble_pack", "checkout_commit"]

Notes = Mapping[str, str | int | float | bool]
Log = Callable[[str], None]


def assemble_pack(
    out: Path,
    *,
    recipe: PackRecipe,
    dataset: Dataset,
    held_out: Sequence[LabelledField],
    detector: FasterRCNN,
    classifier: Classifier,
    seed: int,
    max_false_share: float,
    notes: Notes,
    scratch: Path,
    log: Log,
) -> Pack:
    """Makes the pack and writes it to `out`.

    held_out: fields of smears that neither network was trained on; caller and score threshold are fitted to them.
    max_false_share: of the regions found, at the score threshold.
    notes: for the manifest's `training`.
    scratch: a folder for drafts, which are removed.

    Raises UsageError if the held-out fields do not suffice or the detector cannot keep to max_false_share,
    OutputError if `out` cannot be written.
    """
    regions = load_regions(held_out, short_side_px=recipe.detector.short_side_px)
    log(f"training the caller on {len(regions)} regions of held-out smears")
    is_abnormal = np.isin(dataset.types, dataset.abnormal)
    caller, report = train_caller(
        predict(classifier, regions, settings=recipe.classifier),
        np.asarray(regions.types[:, is_abnormal].any(axis=1)),
        regions.groups,
        seed=seed,
    )
    log("exporting the networks")
    network_a, network_b = export_detector(detector)
    files = {
        "detector.onnx": network_a,
        "box_head.onnx": network_b,
        "classifier.onnx": export_classifier(classifier, patch_px=recipe.classifier.patch_px),
        "caller.treelite": caller,
        "golden.npz": encode_golden([]),
    }

    def manifest(score_threshold: float, accuracy: Notes) -> Manifest:
        return Manifest.model_validate(
            {
                "schema": SCHEMA,
                "name": recipe.name,
                "version": recipe.version,
                "licence": recipe.licence,
                "description": recipe.description,
                "types": dataset.types,
                "abnormal": dataset.abnormal,
                "detector": recipe.detector.model_copy(update={"score_threshold": score_threshold}),
                "classifier": recipe.classifier,
                "caller": recipe.caller,
                "training": notes,
                "accuracy": accuracy,
                "files": file_records(files),
            }
        )

    log(f"measuring on {len(held_out)} held-out fields")
    floor = recipe.detector.score_threshold
    with tempfile.TemporaryDirectory(dir=scratch, prefix="draft-") as drafts:
        write_pack(Path(drafts) / "floor", manifest=manifest(floor, {}), files=files)
        with Engine.open(Path(drafts) / "floor", device="cpu", precision="fp32") as engine:
            findings = analyze_fields(engine, held_out)
        threshold = _operating_point(findings, max_false_share=max_false_share, floor=floor)
        log(f"score threshold {threshold:g}; computing the golden answers")
        write_pack(Path(drafts) / "chosen", manifest=manifest(threshold, {}), files=files)
        with Engine.open(Path(drafts) / "chosen", device="cpu", precision="fp32") as engine:
            files["golden.npz"] = make_golden(lambda frame: _regions(engine, frame))
    accuracy = _caller_measures(report) | measure(
        findings, score_threshold=threshold, types=dataset.types, abnormal=dataset.abnormal
    )
    return write_pack(out, manifest=manifest(threshold, accuracy), files=files)


def checkout_commit() -> str | None:
    """The git commit of the checkout that this program runs from, with -dirty if it was changed; None outside one."""
    git = shutil.which("git")
    source = Path(rbc_engine.__file__)
    if git is None:
        return None
    for arguments in (
        # An installed copy may lie inside a checkout of something else.
        ["ls-files", "--error-unmatch", source.name],
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    ):
        answer = subprocess.run(
            [git, "-C", str(source.parent), *arguments], capture_output=True, text=True, check=False
        )
        if answer.returncode != 0:
            return None
    return answer.stdout.strip()


def _operating_point(findings: Findings, *, max_false_share: float, floor: float) -> float:
    threshold = metrics.lowest_threshold(
        findings.correct, findings.scores, max_false_share=max_false_share, floor=floor
    )
    if threshold is None:
        raise UsageError(
            f"at no score threshold are at most {max_false_share:g} of the detector's regions false "
            f"({len(findings.scores)} regions found on held-out smears, {int(findings.correct.sum())} of them true); "
            f"train it for more steps, or raise --max-false-share"
        )
    return threshold


def _regions(engine: Engine, frame: UInt8) -> Regions:
    regions = engine.analyze(frame).regions
    if regions is None:
        raise RbcError("the engine gave no regions for a rendered frame; report this")
    return regions


def _caller_measures(report: CallerReport) -> dict[str, float | int]:
    return {
        "abnormal_accuracy_regions_cross_validated_by_smear": round(report.accuracy, 4),
        "abnormal_auc_regions_cross_validated_by_smear": round(report.auc, 4),
        "caller_regions": report.regions,
        "caller_folds": report.folds,
    }
