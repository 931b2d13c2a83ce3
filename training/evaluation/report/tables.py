"""Show an evaluation as tables: evaluation.md, and the same on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rbc_engine.training.evaluation.cell_types import MEAN_EXAMPLES, WORST_EXAMPLES
from rbc_engine.training.evaluation.result import (
    SUBSETS,
    DetectionMeasures,
    Evaluation,
    Measure,
    TypeMeasures,
    TypeSection,
)

__all__ = [
    "PLOTS",
    "Table",
    "markdown_lines",
    "measure_text",
    "summary_line",
    "tables",
    "to_markdown",
    "transposed",
]

PLOTS = {
    "precision_recall.png": "Detections: precision and recall at IoU 0.5",
    "roc.png": "Types: ROC curves",
    "reliability.png": "Types: reliability",
    "confusion.png": "Single cells: confusion",
}
"""Plots that an evaluation may have, and what they show."""

_SUBSET_TITLES = ("single-cell regions", "several-cell regions", "all regions")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Hold a title, the headings of all columns, and as many cells in each row."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def measure_text(measure: Measure) -> str:
    """Format a measure, '0.978 (0.961 to 0.989)', without what does not exist."""
    if measure.value is None:
        return ""
    if measure.low is None or measure.high is None:
        return f"{measure.value:.3f}"
    return f"{measure.value:.3f} ({measure.low:.3f} to {measure.high:.3f})"


def summary_line(evaluation: Evaluation) -> str:
    """Describe pack, data and engine in a sentence or two."""
    pack, data, engine = evaluation.pack, evaluation.data, evaluation.engine
    return (
        f"{pack.name} {pack.version} (sha256 {pack.sha256[:12]}) on {data.fields} fields of "
        f"{len(data.smear_groups)} smear groups of {data.name}; {engine.source}, {engine.device}, "
        f"{engine.precision}; score threshold {engine.score_threshold:g}. "
        f"In brackets: {evaluation.bootstrap.percent:g} % intervals, "
        f"{evaluation.bootstrap.resamples} resamples of the smear groups, seed "
        f"{evaluation.bootstrap.seed}."
    )


def tables(evaluation: Evaluation) -> list[Table]:
    """Return all measures except those of each type in single-cell and several-cell regions, which
    evaluation.json has.
    """
    found = [_detection_table(evaluation)]
    sections = (
        ("Types of detected regions", evaluation.types_of_detections),
        ("Types of true boxes", evaluation.types_of_true_boxes),
    )
    for title, section in sections:
        if section is not None:
            found.append(_types_table(title, section))
    for title, section in sections:
        if section is not None:
            found.append(_per_type_table(f"{title}, type by type, all regions", section))
    return found


def to_markdown(evaluation: Evaluation, *, plots: Sequence[str]) -> str:
    """Return evaluation.md. plots: names of PLOTS in the same folder."""
    lines = [f"# Evaluation of {evaluation.pack.name} {evaluation.pack.version}", ""]
    lines += [summary_line(evaluation), ""]
    lines += markdown_lines(tables(evaluation), evaluation.warnings)
    for name in plots:
        lines += ["", f"## {PLOTS[name]}", "", f"![{PLOTS[name]}]({name})"]
    groups = ", ".join(_escape(name) for name in evaluation.data.smear_groups)
    lines += ["", f"Smear groups: {groups}.", ""]
    return "\n".join(lines)


def markdown_lines(found: Sequence[Table], warnings: Sequence[str]) -> list[str]:
    """Return warnings and tables as lines of Markdown."""
    lines = [f"- {_escape(warning)}" for warning in warnings]
    for table in found:
        lines += ["", f"## {table.title}", ""]
        lines += [_row(table.headings), _row(["---"] + ["---:"] * (len(table.headings) - 1))]
        lines += [_row([_escape(cell) for cell in row]) for row in table.rows]
    return lines


def transposed(table: Table) -> Table:
    """Return a table with its columns as rows, for one too wide for a terminal."""
    first, *others = zip(table.headings, *table.rows, strict=True)
    return Table(title=table.title, headings=first, rows=others)


def _detection_table(evaluation: Evaluation) -> Table:
    def row(title: str, cell: Callable[[DetectionMeasures], str]) -> tuple[str, ...]:
        return (title, *(cell(evaluation.detection[subset]) for subset in SUBSETS))

    return Table(
        title="Detection",
        headings=("measure", *_SUBSET_TITLES),
        rows=[
            row("true regions", lambda m: str(m.regions)),
            row("labelled cells", lambda m: str(m.labelled_cells)),
            row("average precision, IoU 0.5", lambda m: measure_text(m.ap50)),
            row("average precision, IoU 0.5:0.95", lambda m: measure_text(m.ap50_95)),
            row("regions found, IoU 0.5", lambda m: measure_text(m.found)),
            row("cell centres in a detection", lambda m: measure_text(m.centres_hit)),
            row("detections", lambda m: str(m.detections)),
            row("detections that match no region", lambda m: measure_text(m.unmatched)),
            row("detections on background", lambda m: measure_text(m.on_background)),
        ],
    )


def _types_table(title: str, section: TypeSection) -> Table:
    def row(name: str, cell: Callable[[TypeMeasures], str]) -> tuple[str, ...]:
        return (name, *(cell(section.subsets[subset]) for subset in SUBSETS))

    def mean_auc(measures: TypeMeasures) -> str:
        text = measure_text(measures.mean_auc)
        return text and f"{text}, {measures.mean_auc_types} types"

    def worst_auc(measures: TypeMeasures) -> str:
        text = measure_text(measures.worst_auc)
        return text and f"{text}, {measures.worst_type}"

    single = section.single_cells
    return Table(
        title=title,
        headings=("measure", *_SUBSET_TITLES),
        rows=[
            row("regions", lambda m: str(m.regions)),
            row("all types exactly right", lambda m: measure_text(m.exact_match)),
            row(
                "the same, missed regions wrong",
                lambda m: measure_text(m.exact_match_missed_wrong),
            ),
            row(f"mean AUC, types with {MEAN_EXAMPLES} examples", mean_auc),
            row(f"worst AUC, types with {WORST_EXAMPLES} examples", worst_auc),
            row("abnormal or not: accuracy", lambda m: measure_text(m.abnormal_accuracy)),
            row("abnormal or not: AUC", lambda m: measure_text(m.abnormal_auc)),
            ("likeliest type: accuracy", measure_text(single.accuracy), "", ""),
            ("likeliest type: macro F1", measure_text(single.macro_f1), "", ""),
            (
                f"likeliest type: accuracy, {single.rare} rare in their field",
                measure_text(single.rare_accuracy),
                "",
                "",
            ),
        ],
    )


def _per_type_table(title: str, section: TypeSection) -> Table:
    return Table(
        title=title,
        headings=("type", "examples", "AUC", "average precision", "calibration error"),
        rows=[
            (
                name,
                str(measures.examples),
                measure_text(measures.auc),
                measure_text(measures.average_precision),
                measure_text(measures.calibration_error),
            )
            for name, measures in section.subsets["all"].per_type.items()
        ],
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Return outside text on one line, with Markdown's own characters escaped."""
    flat = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*[]<>|" else letter for letter in flat)
