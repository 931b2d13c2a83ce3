"""Measure the effect of the patch size: the same start, the same number of patches, several
sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from rbc_engine.errors import UsageError
from rbc_engine.lanes.stages.call import types_held
from rbc_engine.training.evaluation.findings import MIN_EXAMPLES
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.training.evaluation.report.tables import Table
from rbc_engine.training.fit.classifier import predict
from rbc_engine.training.fit.region_set import load_regions
from rbc_engine.training.plan import TrainingPlan
from rbc_engine.training.reproduce.study_files import write_result

__all__ = ["PatchSizeRow", "PatchSizeTable", "compare_patch_sizes", "write_patch_sizes"]

Log = Callable[[str], None]


class PatchSizeRow(BaseModel):
    """Hold the measures on true boxes of held-out smears. cost: pixels of a patch relative to the
    smallest size's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patch_px: int
    cost: float
    mean_auc: float
    exact_match: float
    single_cell_accuracy: float
    single_cell_macro_f1: float


class PatchSizeTable(BaseModel):
    """Hold the whole of patch_sizes.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    smear_groups: tuple[str, ...]
    regions: int
    patches: int
    start: str
    rows: tuple[PatchSizeRow, ...]


def compare_patch_sizes(
    open_plan: Callable[[Path], TrainingPlan],
    sizes_px: Sequence[int],
    *,
    patches: int,
    learning_rate: float,
    bf16: bool,
    start: Path | None,
    work: Path,
    log: Log,
) -> PatchSizeTable:
    """Train a classifier on patches of each size, or resume, and measure it on the held-out smears.

    open_plan: a training in a folder. patches: how many each is trained on. start: see
    TrainingPlan.train_classifier.

    Raises UsageError for a split that holds nothing out.
    """
    rows = []
    for patch_px in sorted(set(sizes_px)):
        plan = open_plan(work / str(patch_px))
        if not plan.held_out:
            raise UsageError(
                "patch sizes are compared on held-out smears; raise --validation-share"
            )
        log(f"patches of {patch_px} px")
        plan.train_classifier(
            stages=((patch_px, patches),), learning_rate=learning_rate, bf16=bf16, start=start
        )
        rows.append(_evaluate(plan, patch_px, min(sizes_px)))
    regions = load_regions(plan.held_out, short_side_px=plan.recipe.detector.short_side_px)
    return PatchSizeTable(
        dataset=plan.dataset.name,
        smear_groups=tuple(sorted(set(regions.groups.tolist()))),
        regions=len(regions),
        patches=patches,
        start="random weights" if start is None else start.name,
        rows=tuple(rows),
    )


def _evaluate(plan: TrainingPlan, patch_px: int, smallest_px: int) -> PatchSizeRow:
    classifier, settings = plan.trained_classifier()
    regions = load_regions(plan.held_out, short_side_px=plan.recipe.detector.short_side_px)
    probabilities = predict(classifier, regions, settings=settings)
    single = regions.cells == 1
    aucs = metrics.type_aucs(regions.types, probabilities, min_examples=MIN_EXAMPLES)
    accuracy, macro_f1 = metrics.single_cell_scores(regions.types[single], probabilities[single])
    return PatchSizeRow(
        patch_px=patch_px,
        cost=(patch_px / smallest_px) ** 2,
        mean_auc=float(np.nanmean(aucs)),
        exact_match=metrics.exact_match(
            regions.types, types_held(probabilities, settings=settings)
        ),
        single_cell_accuracy=accuracy,
        single_cell_macro_f1=macro_f1,
    )


def write_patch_sizes(folder: Path, table: PatchSizeTable) -> None:
    """Write patch_sizes.json and patch_sizes.md. Raises OutputError if writing fails."""
    summary = (
        f"Classifiers trained on {table.patches} patches each, from {table.start}; measured on the "
        f"true boxes of {table.regions} regions in {len(table.smear_groups)} smear groups of "
        f"{table.dataset} that none of them saw. Cost: pixels of a patch, to which the trunk's "
        "time is proportional."
    )
    write_result(
        folder,
        "patch_sizes",
        values=table,
        title="Patch sizes",
        lines=[summary],
        tables=[
            Table(
                title="Types by patch size",
                headings=("patch, px", "cost", "mean AUC", "all types", "single cells", "macro F1"),
                rows=[
                    (
                        str(row.patch_px),
                        f"{row.cost:.2f}",
                        f"{row.mean_auc:.4f}",
                        f"{row.exact_match:.3f}",
                        f"{row.single_cell_accuracy:.3f}",
                        f"{row.single_cell_macro_f1:.3f}",
                    )
                    for row in table.rows
                ],
            )
        ],
    )
