"""Define laboratories.json as types."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from rbc_engine.training.evaluation.result import (
    BootstrapNotes,
    EngineNotes,
    Measure,
    PackNotes,
    ProgramNotes,
)

__all__ = [
    "LABORATORIES_SCHEMA",
    "MEASURES",
    "TYPE_MEASURES",
    "LaboratoryRow",
    "LaboratoryTable",
    "Summary",
]

LABORATORIES_SCHEMA: Final = 1

MEASURES: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "isolated_found": ("isolated red cells found", True),
        "centres_hit": ("red centres in a red region", True),
        "cell_ap50": ("cells: AP at IoU 0.5", True),
        "cell_errors": ("cells: missed and false, over true", False),
        "white_cells_red": ("white cells called red", False),
        "white_cells_found": ("white cells found", True),
        "extra_regions": ("extra regions", False),
        "healthy_abnormal": ("healthy donors: abnormal", False),
        "unsure": ("regions unsure", False),
        "unfamiliar": ("fields unfamiliar", False),
        "uncovered": ("fields uncovered", False),
    }
)
"""The measures of every laboratory, with their headings, and whether more is better."""

TYPE_MEASURES: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "region_ap50": ("regions: AP at IoU 0.5", True),
        "mean_auc": ("types: mean AUC", True),
        "worst_auc": ("types: worst AUC", True),
        "exact": ("all types right", True),
        "exact_several": ("the same, several cells", True),
        "single_accuracy": ("single cells: accuracy", True),
        "single_macro_f1": ("single cells: macro F1", True),
        "abnormal_accuracy": ("abnormal or not: accuracy", True),
        "abnormal_auc": ("abnormal or not: AUC", True),
        "specificity": ("specificity on normal cells", True),
        "sensitivity": ("sensitivity", True),
    }
)
"""The further measures of a laboratory whose regions have types."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LaboratoryRow(_Section):
    """Hold the measures of one laboratory; what cannot be measured there is None in each."""

    name: str
    licence: str
    use: Literal["held out", "all"]
    """Which of its fields were measured."""
    fields: int
    groups: int
    """Smears where they are known, else fields: what the intervals resample."""
    red_cells: int
    white_cells: int
    measures: dict[str, Measure]
    """By the names in MEASURES."""
    types: dict[str, Measure] | None
    """By the names in TYPE_MEASURES."""


class Summary(_Section):
    """Hold one measure over all laboratories that have it."""

    laboratories: int
    mean: float
    worst: float
    worst_laboratory: str


class LaboratoryTable(_Section):
    """Hold the whole of laboratories.json."""

    schema_: Literal[1] = Field(alias="schema")
    pack: PackNotes
    program: ProgramNotes
    engine: EngineNotes
    collection: str
    bootstrap: BootstrapNotes
    laboratories: tuple[LaboratoryRow, ...]
    summary: dict[str, Summary]
    warnings: tuple[str, ...]
