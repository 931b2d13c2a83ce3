"""Define evaluation.json as types: every measure with its interval, and the data of the
measurement.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "SCHEMA",
    "SUBSETS",
    "BootstrapNotes",
    "CellTypeMeasures",
    "DataNotes",
    "DetectionMeasures",
    "EngineNotes",
    "Evaluation",
    "Measure",
    "PackNotes",
    "ProgramNotes",
    "SingleCells",
    "Subset",
    "TypeMeasures",
    "TypeSection",
]

SCHEMA: Final = 1

Subset = Literal["single_cell", "several_cells", "all"]
SUBSETS: tuple[Subset, ...] = ("single_cell", "several_cells", "all")
"""Regions of exactly one cell, which are isolated cells; of two or more; and all, including those
whose cells nobody counted.
"""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Measure(_Section):
    """Hold a measure with its 95 % interval. None where it does not exist: a share of nothing, an
    AUC of one class.
    """

    value: float | None
    low: float | None
    high: float | None


class PackNotes(_Section):
    name: str
    version: str
    sha256: str
    """Of its pack.toml, which holds the hashes of all its files."""


class ProgramNotes(_Section):
    version: str
    commit: str


class EngineNotes(_Section):
    """Describe what made the scored regions."""

    source: Literal["live run", "regions.parquet"]
    device: str
    backend: str
    precision: str
    score_threshold: float
    """The pack's; everything except the average precisions and the curves is measured at it."""
    score_floor: float
    """Detections under it were not seen; average precisions ignore them."""
    saturated_fields: int
    """Fields in which the detector filled its fixed-size output."""


class DataNotes(_Section):
    format: str
    name: str
    smear_groups: tuple[str, ...]
    fields: int
    regions: int
    single_cell_regions: int
    several_cell_regions: int
    typed_regions: int
    """Regions of which every cell has a label."""
    labelled_cells: int


class BootstrapNotes(_Section):
    """Describe the bootstrap. Intervals are between percentiles of resamples of the smear groups,
    drawn with replacement.
    """

    resamples: int
    seed: int
    percent: float


class DetectionMeasures(_Section):
    """Hold the detection measures of one subset of the true regions.

    A detection that matches no region belongs to the subset of the region it shares most with; one
    on background, less than half of it covered by true regions, belongs to every subset.
    """

    regions: int
    labelled_cells: int
    ap50: Measure
    """Area under the precision-recall curve; a detection is right if its IoU with a free region is
    0.5 or more.
    """
    ap50_95: Measure
    """COCO's: precision at 101 recalls, mean over the IoUs 0.5, 0.55 ... 0.95; with no limit of
    detections per image.
    """
    found: Measure
    """Share of the regions that a detection matches at IoU 0.5. Of single-cell regions: isolated
    cells found.
    """
    centres_hit: Measure
    """Share of the labelled cell centres that lie in any detection."""
    detections: int
    unmatched: Measure
    """Share of the detections that match no true region at IoU 0.5, one to one: on background,
    parts of regions, and regions found twice."""
    on_background: Measure
    """Share of the detections on background."""


class CellTypeMeasures(_Section):
    examples: int
    """Regions that hold the type."""
    auc: Measure
    """Area under the ROC curve."""
    average_precision: Measure
    """Area under the precision-recall curve of regions by their probability."""
    calibration_error: Measure
    """Expected calibration error: ten bins of equal width, each weighted by its regions."""


class TypeMeasures(_Section):
    """Hold the type measures of one subset of the typed regions."""

    regions: int
    exact_match: Measure
    """Share of the regions with all types right."""
    exact_match_missed_wrong: Measure
    """The same, over these regions and those that no detection matches."""
    mean_auc: Measure
    """Over the types with at least 20 examples; a resample without examples of one excludes it."""
    mean_auc_types: int
    worst_type: str | None
    """The type of lowest AUC among those with at least 50 examples."""
    worst_auc: Measure
    abnormal_accuracy: Measure
    """Share of the regions that the caller calls right, abnormal or not, at the pack's
    threshold.
    """
    abnormal_auc: Measure
    per_type: dict[str, CellTypeMeasures]


class SingleCells(_Section):
    """Compare the likeliest type of single-cell regions with their one type."""

    regions: int
    accuracy: Measure
    macro_f1: Measure
    """Mean over the types that the regions hold."""
    rare: int
    """Those of a type held by under 5 % of the typed regions of their field, which a field prior
    may lower.
    """
    rare_accuracy: Measure
    confusion: list[list[int]]
    """[T][T]: regions of the type of the row that are predicted as the type of the column."""


class TypeSection(_Section):
    subsets: dict[Subset, TypeMeasures]
    single_cells: SingleCells


class Evaluation(_Section):
    """Hold the whole of evaluation.json."""

    schema_: Literal[1] = Field(alias="schema")
    pack: PackNotes
    program: ProgramNotes
    engine: EngineNotes
    data: DataNotes
    types: tuple[str, ...]
    bootstrap: BootstrapNotes
    detection: dict[Subset, DetectionMeasures]
    types_of_detections: TypeSection | None
    """Typed regions matched by a detection, scored on the result for the detection: what ships."""
    types_of_true_boxes: TypeSection | None
    """Every typed region, with its true box given to the engine's crop and classifier: no region is
    missed.
    """
    warnings: tuple[str, ...]
