"""Make Table 1 (Qiu et al. 2019): the effect of training on regions of several cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from rbc_engine.errors import UsageError
from rbc_engine.lanes.stages.call import types_held
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.evaluation.measures import statistics
from rbc_engine.training.evaluation.measures.bootstrap import PERCENT, Bootstrap
from rbc_engine.training.evaluation.report.tables import Table, measure_text
from rbc_engine.training.evaluation.result import Measure
from rbc_engine.training.fit.caller import train_caller
from rbc_engine.training.reproduce.fold_networks import MODELS, CrossValidation, Model
from rbc_engine.training.reproduce.held_out import HeldOut
from rbc_engine.training.reproduce.study_files import write_result

__all__ = ["MIN_EXAMPLES", "Part", "Table1", "measure_table1", "write_table1"]

MIN_EXAMPLES = 20
"""Types with fewer regions to measure on are excluded from the mean AUC: theirs means little."""

Part = Literal["single_cell", "several_cells", "all"]
_PARTS: dict[Part, str] = {
    "single_cell": "single-cell regions",
    "several_cells": "several-cell regions",
    "all": "both",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PartMeasures(_Section):
    """Hold the measures on the held-out regions of one part."""

    regions: int
    exact_match: Measure
    """Share of the regions with all types right."""
    mean_auc: Measure
    """Over the types of `auc` with at least 20 examples in this part."""
    mean_auc_types: int
    auc: dict[str, Measure]
    """Types that could be learnt in every fold that measures them."""


class Difference(_Section):
    """Hold Model A minus Model B on several-cell regions; both see the same resamples, so the
    interval is of pairs.
    """

    exact_match: Measure
    mean_auc: Measure


class CallerNotes(_Section):
    """Describe the caller on Model A's probabilities, with every region called by a caller that saw
    no region of its smear.
    """

    accuracy: float
    auc: float
    regions: int
    folds: int


class Table1(_Section):
    """Hold the whole of table1.json. Row A* of the paper is Model A's part single_cell."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    dataset: str
    folds: int
    finished_folds: tuple[int, ...]
    smear_groups: tuple[str, ...]
    """Those held out in the finished folds."""
    trunk: str
    trunk_weights: str
    stages: tuple[tuple[int, int], ...]
    learning_rate: float
    bf16: bool
    clump_share: float
    """Of Model A's patches; Model B's are never composed."""
    seed: int
    resamples: int
    percent: float = PERCENT
    models: dict[Model, dict[Part, PartMeasures]]
    difference: Difference
    caller: CallerNotes | None
    notes: tuple[str, ...]


def measure_table1(
    validation: CrossValidation,
    held_out: Mapping[Model, HeldOut],
    *,
    finished: Sequence[int],
    resamples: int,
) -> Table1:
    """Measure the models. held_out: of each model the regions of the finished folds, in the same
    order.
    """
    regions = held_out["A"]
    names, index = np.unique(regions.groups, return_inverse=True)
    training, dataset = validation.training, validation.dataset
    bootstrap = Bootstrap(len(names), resamples=resamples, seed=training.seed)
    unlearnt = (regions.types & ~regions.learnt).any(axis=0)
    scores = {
        model: {
            part: _Scores(
                held_out[model], part, index, np.asarray(~unlearnt), settings=validation.settings
            )
            for part in _PARTS
        }
        for model in MODELS
    }
    a, b = (scores[model]["several_cells"] for model in MODELS)
    caller, notes = _caller(validation, regions)
    if unlearnt.any():
        missing = ", ".join(np.array(dataset.types)[unlearnt])
        notes.append(
            f"no AUC of {missing}: in some fold no single cell of that type is left to train on; "
            f"exact match still counts their regions"
        )
    if len(names) < 2:
        notes.append("only one smear group: there are no intervals")
    return Table1(
        schema=1,
        dataset=dataset.name,
        folds=len(validation.folds),
        finished_folds=tuple(finished),
        smear_groups=tuple(names.tolist()),
        trunk=training.trunk,
        trunk_weights=validation.trunk_weights,
        stages=training.stages,
        learning_rate=training.learning_rate,
        bf16=training.bf16,
        clump_share=training.clump_share,
        seed=training.seed,
        resamples=resamples,
        models={
            model: {part: scores[model][part].measure(dataset.types, bootstrap) for part in _PARTS}
            for model in MODELS
        },
        difference=Difference(
            exact_match=bootstrap.measure(lambda w: a.exact_match(w) - b.exact_match(w)),
            mean_auc=bootstrap.measure(lambda w: a.mean_auc(w) - b.mean_auc(w)),
        ),
        caller=caller,
        notes=(*dataset.notes, *notes),
    )


class _Scores:
    """Score one model on one part of the held-out regions, as functions of the weights of the smear
    groups.
    """

    def __init__(
        self,
        held_out: HeldOut,
        part: Part,
        index: npt.NDArray[np.int64],
        learnt: npt.NDArray[np.bool_],
        *,
        settings: ClassifierSettings,
    ) -> None:
        """Prepare the scores. index: int64 [R], each region's group. learnt: bool [T], types whose
        AUC is measured.
        """
        chosen = {
            "single_cell": held_out.cells == 1,
            "several_cells": held_out.cells >= 2,
            "all": np.ones(len(held_out), bool),
        }[part]
        count = int(index.max()) + 1
        types, probabilities = held_out.types[chosen], held_out.probabilities[chosen]
        groups = index[chosen]
        exact = (types == types_held(probabilities, settings=settings)).all(axis=1)
        self.regions = len(types)
        self.exact_match = statistics.share(exact, groups, count=count)
        self._auc = {
            column: statistics.roc_auc(
                types[:, column], probabilities[:, column], groups, count=count
            )
            for column in np.flatnonzero(learnt).tolist()
        }
        examples = types.sum(axis=0)
        # A type that every region holds has no AUC either.
        averaged = [
            auc
            for column, auc in self._auc.items()
            if MIN_EXAMPLES <= examples[column] < self.regions
        ]
        self._mean_auc_types = len(averaged)
        self.mean_auc = statistics.mean_of(averaged)

    def measure(self, types: Sequence[str], bootstrap: Bootstrap) -> PartMeasures:
        return PartMeasures(
            regions=self.regions,
            exact_match=bootstrap.measure(self.exact_match),
            mean_auc=bootstrap.measure(self.mean_auc),
            mean_auc_types=self._mean_auc_types,
            auc={types[column]: bootstrap.measure(auc) for column, auc in self._auc.items()},
        )


def _caller(validation: CrossValidation, held_out: HeldOut) -> tuple[CallerNotes | None, list[str]]:
    dataset = validation.dataset
    abnormal = np.asarray(held_out.types[:, np.isin(dataset.types, dataset.abnormal)].any(axis=1))
    try:
        _, report = train_caller(
            held_out.probabilities, abnormal, held_out.groups, seed=validation.training.seed
        )
    except UsageError as error:
        return None, [f"the caller is not scored: {error}"]
    notes = CallerNotes(
        accuracy=report.accuracy, auc=report.auc, regions=report.regions, folds=report.folds
    )
    return notes, []


def write_table1(folder: Path, table: Table1) -> None:
    """Write table1.json and table1.md. Raises OutputError if writing fails."""
    a, b = (table.models[model] for model in MODELS)
    rows: dict[str, PartMeasures] = {"A": a["all"], "A*": a["single_cell"], "B": b["all"]}
    write_result(
        folder,
        "table1",
        values=table,
        title="Table 1: training on single cells, and on touching ones too",
        lines=[_summary(table), *(f"Note: {note}." for note in table.notes)],
        tables=[
            Table(
                title="Models A, A* and B",
                headings=("", "regions", "all types right", "mean AUC", *a["all"].auc),
                rows=[
                    (name, *_cells(part), *(measure_text(auc) for auc in part.auc.values()))
                    for name, part in rows.items()
                ],
            ),
            Table(
                title="By regions",
                headings=("", "regions", "all types right", "mean AUC"),
                rows=[
                    (f"{model}, {title}", *_cells(table.models[model][part]))
                    for part, title in _PARTS.items()
                    for model in MODELS
                ],
            ),
            Table(
                title="A minus B on several-cell regions",
                headings=("", "difference"),
                rows=[
                    ("all types right", measure_text(table.difference.exact_match)),
                    ("mean AUC", measure_text(table.difference.mean_auc)),
                ],
            ),
            *_caller_tables(table.caller),
        ],
    )


def _summary(table: Table1) -> str:
    stages = ", ".join(f"{patches} patches of {side} px" for side, patches in table.stages)
    folds = ", ".join(map(str, table.finished_folds))
    return (
        f"{table.dataset}, folds {folds} of {table.folds}, {len(table.smear_groups)} smear groups, "
        f"each scored with models that saw no field of it. {table.trunk} from "
        f"{table.trunk_weights}, {stages}, learning rate {table.learning_rate:g}, seed "
        f"{table.seed}. A: trained on regions of one and of several cells, and on composed clumps. "
        "A*: the same model, scored on single cells. B: trained on single cells only. In "
        f"brackets: {table.percent:g} % intervals, {table.resamples} resamples of the smear "
        f"groups. The mean AUC is over the types with {MIN_EXAMPLES} examples or more among the "
        "regions of its row."
    )


def _cells(part: PartMeasures) -> tuple[str, str, str]:
    mean_auc = measure_text(part.mean_auc)
    return (
        str(part.regions),
        measure_text(part.exact_match),
        mean_auc and f"{mean_auc}, {part.mean_auc_types} types",
    )


def _caller_tables(caller: CallerNotes | None) -> list[Table]:
    if caller is None:
        return []
    return [
        Table(
            title=f"Abnormal or not, by the caller, {caller.folds} folds by smear",
            headings=("", "Model A"),
            rows=[
                ("regions", str(caller.regions)),
                ("accuracy", f"{caller.accuracy:.3f}"),
                ("AUC", f"{caller.auc:.3f}"),
            ],
        )
    ]
