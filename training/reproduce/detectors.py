"""Compare detectors with trunks of several depths: accuracy after the same number of steps, and
speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision.models.detection import FasterRCNN

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import Dataset, LabelledField
from rbc_engine.training.evaluation.measures import metrics, statistics
from rbc_engine.training.evaluation.measures.bootstrap import PERCENT, Bootstrap
from rbc_engine.training.evaluation.report.tables import Table, measure_text
from rbc_engine.training.evaluation.result import Measure
from rbc_engine.training.fit.detector import DetectorTraining, train_detector
from rbc_engine.training.networks.imagenet import TrunkWeights
from rbc_engine.training.networks.models import DetectorTrunk
from rbc_engine.training.reproduce.study_files import load_arrays, save_arrays, write_result
from rbc_engine.training.workspace import Workspace
from rbc_engine.types.arrays import Float32

__all__ = ["DetectorTable", "compare_detectors", "step_times", "write_detectors"]

Log = Callable[[str], None]


class DetectorRow(BaseModel):
    """Hold the measures of one detector. Speeds are medians, in images per second, on `threads`
    threads of a CPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    ap50: Measure
    """Area under the precision-recall curve at IoU 0.5, over the scores from the pack's lowest
    on.
    """
    training_images_per_s: float | None
    """Canvases; None if the last part of an interrupted training took fewer than two steps."""
    inference_images_per_s: float
    """PyTorch in float32, one image at a time: the gain of the engine's runtimes and batches comes
    on top.
    """
    threads: int


class DetectorTable(BaseModel):
    """Hold the whole of detectors.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_: Literal[1] = Field(default=1, alias="schema")
    dataset: str
    held_out_groups: tuple[str, ...]
    fields: int
    regions: int
    steps: int
    batch: int
    canvas_px: int
    short_side_px: int
    trunk_weights: str
    bf16: bool
    """Whether the training, not the inference, computed in bfloat16."""
    seed: int
    resamples: int
    percent: float = PERCENT
    trunks: dict[DetectorTrunk, DetectorRow]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Findings:
    """Hold D detections in N fields.

    boxes: float32 [D, 4], image pixels. scores: float32 [D]. counts: int64 [N], detections in each
    field.
    image_s: float64 [N], seconds of each. step_s: float64 [S], seconds between the ends of training
    steps.
    threads: int64 [], with which both were measured.
    """

    boxes: Float32
    scores: Float32
    counts: npt.NDArray[np.int64]
    image_s: npt.NDArray[np.float64]
    step_s: npt.NDArray[np.float64]
    threads: npt.NDArray[np.int64]


def compare_detectors(
    dataset: Dataset,
    *,
    held_out: Sequence[str],
    trunks: Sequence[DetectorTrunk],
    settings: DetectorSettings,
    training: DetectorTraining,
    trunk_weights: TrunkWeights,
    work: Path,
    resamples: int,
    log: Log,
) -> DetectorTable:
    """Train a detector with each trunk, or resume, and measure it on fields of other smears.

    held_out: smear groups to measure on.
    training: of all of them, except for the trunk.
    work: each trunk has a folder in it; a finished one is used as it is.

    Raises UsageError for too few fields, or a `work` started with other options; see train_detector
    for the rest.
    """
    evaluated = [f for f in dataset.fields if f.group in held_out and len(f.boxes)]
    trained_on = [f for f in dataset.fields if f.group not in held_out]
    if not evaluated or len(trained_on) < training.batch:
        raise UsageError(
            f"the detectors need a held-out field with regions, and {training.batch} to train on "
            f"(got {len(evaluated)} and {len(trained_on)}); change --folds, or add images"
        )
    rows: dict[DetectorTrunk, DetectorRow] = {}
    for trunk in trunks:
        findings = _findings(
            trained_on,
            evaluated,
            settings=settings,
            training=replace(training, trunk=trunk),
            trunk_weights=trunk_weights,
            workspace=Workspace(work / trunk),
            held_out=held_out,
            log=log,
        )
        rows[trunk] = _row(
            findings, evaluated, batch=training.batch, seed=training.seed, resamples=resamples
        )
    return DetectorTable(
        schema=1,
        dataset=dataset.name,
        held_out_groups=tuple(held_out),
        fields=len(evaluated),
        regions=sum(len(field.boxes) for field in evaluated),
        steps=training.steps,
        batch=training.batch,
        canvas_px=training.canvas_px,
        short_side_px=settings.short_side_px,
        trunk_weights=trunk_weights,
        bf16=training.bf16,
        seed=training.seed,
        resamples=resamples,
        trunks=rows,
    )


@contextmanager
def step_times() -> Iterator[list[float]]:
    """Yield the times, in seconds, of the end of every optimizer step of the block."""
    times: list[float] = []

    def note(*_: Any) -> None:
        times.append(time.perf_counter())

    hook = register_optimizer_step_post_hook(note)
    try:
        yield times
    finally:
        hook.remove()


def _findings(
    trained_on: Sequence[LabelledField],
    evaluated: Sequence[LabelledField],
    *,
    settings: DetectorSettings,
    training: DetectorTraining,
    trunk_weights: TrunkWeights,
    workspace: Workspace,
    held_out: Sequence[str],
    log: Log,
) -> _Findings:
    options = asdict(training)
    del options["checkpoint_every_s"]
    workspace.begin(
        "detector",
        {**options, "trunk_weights": trunk_weights, "held_out_groups": sorted(held_out)},
    )
    stored = workspace.folder / "findings.npz"
    if stored.is_file():
        log(f"{training.trunk}: finished before, {stored}")
        return _Findings(**load_arrays(stored, [field.name for field in fields(_Findings)]))
    log(f"{training.trunk}: training on {len(trained_on)} fields")
    with step_times() as times:
        model = train_detector(
            trained_on,
            settings=settings,
            training=training,
            checkpoint=workspace.checkpoint("detector"),
            trunk_weights=trunk_weights,
            log=log,
        )
    log(f"{training.trunk}: measuring on {len(evaluated)} fields")
    findings = _detect(model, evaluated, step_s=np.diff(times))
    save_arrays(stored, {field.name: getattr(findings, field.name) for field in fields(_Findings)})
    return findings


@torch.inference_mode()
def _detect(
    model: FasterRCNN, evaluated: Sequence[LabelledField], *, step_s: npt.NDArray[np.float64]
) -> _Findings:
    boxes, scores, image_s = [], [], []
    for number, field in enumerate(evaluated):
        pixels = read_image(field.path, name=str(field.path))
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        if number == 0:
            model([image])  # setting up at the first call is not part of the speed
        started = time.perf_counter()
        found = model([image])[0]
        image_s.append(time.perf_counter() - started)
        boxes.append(found["boxes"].numpy())
        scores.append(found["scores"].numpy())
    return _Findings(
        boxes=np.concatenate(boxes),
        scores=np.concatenate(scores),
        counts=np.array([len(found) for found in scores]),
        image_s=np.array(image_s),
        step_s=step_s,
        threads=np.array(torch.get_num_threads()),
    )


def _row(
    findings: _Findings,
    evaluated: Sequence[LabelledField],
    *,
    batch: int,
    seed: int,
    resamples: int,
) -> DetectorRow:
    names, index = np.unique([field.group for field in evaluated], return_inverse=True)
    ends = np.cumsum(findings.counts)[:-1]
    correct = [
        metrics.match_regions(boxes, scores, field.boxes) >= 0
        for boxes, scores, field in zip(
            np.split(findings.boxes, ends), np.split(findings.scores, ends), evaluated, strict=True
        )
    ]
    truths = np.bincount(index, [len(field.boxes) for field in evaluated], len(names)).astype(float)
    ap50 = statistics.average_precision(
        np.concatenate(correct),
        findings.scores,
        np.repeat(index, findings.counts),
        truths=truths,
    )
    step_s = findings.step_s
    return DetectorRow(
        ap50=Bootstrap(len(names), resamples=resamples, seed=seed).measure(ap50),
        training_images_per_s=batch / float(np.median(step_s)) if len(step_s) else None,
        inference_images_per_s=1 / float(np.median(findings.image_s)),
        threads=int(findings.threads),
    )


def write_detectors(folder: Path, table: DetectorTable) -> None:
    """Write detectors.json and detectors.md. Raises OutputError if writing fails."""
    summary = (
        f"Faster R-CNN with a feature pyramid on each trunk, from {table.trunk_weights}, "
        f"{table.steps} steps of {table.batch} canvases of {table.canvas_px} px, seed "
        f"{table.seed}; measured on {table.regions} regions in {table.fields} fields of "
        f"{len(table.held_out_groups)} smear groups of {table.dataset} that it never saw, at a "
        f"short side of {table.short_side_px} px. Speeds: medians, PyTorch on a CPU; training in "
        f"{'bfloat16' if table.bf16 else 'float32'}, inference in float32, one image at a time. In "
        f"brackets: {table.percent:g} % intervals, {table.resamples} resamples of the smear groups."
    )
    write_result(
        folder,
        "detectors",
        values=table,
        title="Detectors by trunk",
        lines=[summary],
        tables=[
            Table(
                title="Average precision and speed",
                headings=(
                    "trunk",
                    "AP, IoU 0.5",
                    "training, canvases/s",
                    "inference, images/s",
                    "threads",
                ),
                rows=[
                    (
                        trunk,
                        measure_text(row.ap50),
                        ""
                        if row.training_images_per_s is None
                        else f"{row.training_images_per_s:.2f}",
                        f"{row.inference_images_per_s:.2f}",
                        str(row.threads),
                    )
                    for trunk, row in table.trunks.items()
                ],
            )
        ],
    )
