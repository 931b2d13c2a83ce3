"""Draw the plots of an evaluation as PNG, each on a canvas of its own, so that no window system is
needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from rbc_engine.training.evaluation.detection import eligible_detections
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.training.evaluation.measures.statistics import (
    CALIBRATION_BINS,
    Floats,
    calibration_bin,
)
from rbc_engine.training.evaluation.result import SUBSETS, Evaluation, SingleCells, Subset
from rbc_engine.training.evaluation.samples import (
    DetectionSample,
    Mask,
    TypeSample,
    in_subset,
)
from rbc_engine.training.evaluation.score import Scored
from rbc_engine.types.arrays import Float32

__all__ = ["draw_plots", "precision_recall_points", "reliability_points"]

_DPI = 120
_LEAST_PER_BIN = 10
"""A share of fewer regions means little, and its point is omitted."""


def draw_plots(scored: Scored) -> dict[str, bytes]:
    """Return PNG files by name, as in report.tables.PLOTS; the last three only
    if types are scored.
    """
    evaluation = scored.evaluation
    plots = {"precision_recall.png": _precision_recall(scored.detections, evaluation)}
    section = evaluation.types_of_detections
    if scored.types is not None and section is not None:
        plots["roc.png"] = _roc(scored.types, evaluation.types)
        plots["reliability.png"] = _reliability(scored.types, evaluation.types)
        plots["confusion.png"] = _confusion(section.single_cells, evaluation.types)
    return plots


def precision_recall_points(sample: DetectionSample, subset: Subset) -> tuple[Floats, Floats]:
    """Return recall and precision at IoU 0.5, float64 [P] each; empty without a region to find."""
    truths = int(in_subset(sample.truth_kinds, subset).sum())
    if not truths:
        return np.zeros(0), np.zeros(0)
    eligible = eligible_detections(sample.found_kinds[0], subset)
    return metrics.precision_recall(
        sample.right[0][eligible], sample.scores[eligible], truths=truths
    )


def reliability_points(held: Mask, probabilities: Float32) -> tuple[Floats, Floats]:
    """Return the mean probability and the share held, float64 [P] each, of the bins with enough
    regions.
    """
    bins = calibration_bin(probabilities)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    enough = counts >= _LEAST_PER_BIN
    mean = np.bincount(bins, probabilities, CALIBRATION_BINS)[enough] / counts[enough]
    share = np.bincount(bins, held, CALIBRATION_BINS)[enough] / counts[enough]
    return mean, share


def _precision_recall(sample: DetectionSample, evaluation: Evaluation) -> bytes:
    figure, axes = _axes("recall", "precision")
    for subset in SUBSETS:
        recall, precision = precision_recall_points(sample, subset)
        measures = evaluation.detection[subset]
        if measures.ap50.value is None or measures.found.value is None:
            continue
        label = f"{subset.replace('_', ' ')}, AP {measures.ap50.value:.3f}"
        (line,) = axes.plot(np.append(0, recall), np.append(precision[:1], precision), label=label)
        # The shipped threshold is one of the curve's points.
        at = int(np.searchsorted(recall, measures.found.value - 1e-9))
        if at < len(recall):
            axes.plot(recall[at], precision[at], "o", color=line.get_color())
    axes.legend(loc="lower left", title="dot: at the shipped score threshold")
    return _png(figure)


def _roc(sample: TypeSample, types: Sequence[str]) -> bytes:
    figure, axes = _axes("false positive rate", "true positive rate")
    for index, name in enumerate(types):
        held = sample.held[:, index]
        if 0 < held.sum() < len(held):
            false_rate, true_rate, _ = roc_curve(held, sample.probabilities[:, index])
            axes.plot(false_rate, true_rate, label=f"{name} ({held.sum()})", **_style(index))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.legend(loc="lower right", title="type (regions)", fontsize="small")
    return _png(figure)


def _reliability(sample: TypeSample, types: Sequence[str]) -> bytes:
    figure, axes = _axes("mean probability", "share of regions that hold the type")
    for index, name in enumerate(types):
        mean, share = reliability_points(sample.held[:, index], sample.probabilities[:, index])
        axes.plot(mean, share, marker=".", label=name, **_style(index))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.legend(loc="upper left", title="type", fontsize="small")
    return _png(figure)


def _confusion(single: SingleCells, types: Sequence[str]) -> bytes:
    counts = np.array(single.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 3 + 0.45 * len(types)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize="small",
            color="white" if shares[row, column] > 0.5 else "black",
        )
    axes.set_xticks(range(len(types)), types, rotation=90)
    axes.set_yticks(range(len(types)), types)
    axes.set_xlabel("likeliest type")
    axes.set_ylabel("true type")
    return _png(figure)


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=x_label, ylabel=y_label)
    axes.grid(color="0.9")
    return figure, axes


def _style(index: int) -> dict[str, Any]:
    """Return one of ten colours, then the same in dashes."""
    return {"color": f"C{index % 10}", "linestyle": ("-", "--", ":", "-.")[index // 10 % 4]}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
