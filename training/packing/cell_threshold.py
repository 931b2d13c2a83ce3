"""Choose the score threshold of a detector of cells: the one with the fewest missed and false cells
in held-out fields, of all laboratories alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rbc_engine.engine import Engine
from rbc_engine.errors import ImageError, UsageError
from rbc_engine.training.datasets.laboratories.base import RED, CellField
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.types.arrays import Float32
from rbc_engine.types.frames import Decoded, FieldRef, Frame
from rbc_engine.types.kinds import Kind

__all__ = ["CellErrors", "analyzed_cells", "cell_errors", "choose_threshold"]

_THRESHOLDS = np.round(np.arange(0.15, 0.81, 0.05), 2)
_COVERED = 0.5


@dataclass(frozen=True, kw_only=True)
class CellErrors:
    """Count a field's red cells clear of its border: true ones, missed ones, and false ones."""

    true: int
    missed: int
    false: int


def analyzed_cells(
    engine: Engine, fields: Sequence[CellField]
) -> Iterable[tuple[CellField, Float32, Float32]]:
    """Yield each field with the boxes float32 [N, 4] and scores float32 [N] of its red cells.

    Raises ImageError if one cannot be analysed.
    """
    frames = (
        Decoded(
            ref=FieldRef(slide=field.laboratory, field=field.path.name, path=field.path),
            frame=Frame(pixels=field.pixels, slide=field.laboratory, field=field.path.name),
        )
        for field in fields
    )
    for field, result in zip(fields, engine.run(frames), strict=True):
        if result.regions is None:
            raise ImageError(f"{result.path}: {result.error}")
        cells = result.regions.cells
        red = cells.kinds == Kind.RED
        yield field, cells.boxes[red], cells.scores[red]


def cell_errors(field: CellField, boxes: Float32, scores: Float32) -> CellErrors:
    """Match cells to the field's red boxes at an IoU of 0.5.

    A box at the border counts neither as missed nor as false; nor is one false of which half lies
    in an unknown one.
    """
    height, width = field.pixels.shape[:2]
    red = field.kinds == RED
    truth, clear = field.boxes[red], field.clear()[red]
    match = metrics.match_regions(boxes, scores, truth)
    missed = clear.copy()
    missed[match[match >= 0]] = False
    inside = (boxes[:, :2] > 2).all(axis=1) & (boxes[:, 2:] < (width - 2, height - 2)).all(axis=1)
    false = (match < 0) & inside
    if len(field.unknown) and false.any():
        area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
        shared = metrics.box_intersection(boxes, field.unknown).max(axis=1)
        false &= shared < _COVERED * area
    return CellErrors(true=int(clear.sum()), missed=int(missed.sum()), false=int(false.sum()))


def choose_threshold(
    found: Iterable[tuple[CellField, Float32, Float32]],
) -> tuple[float, dict[str, float]]:
    """Return the threshold with the least mean share of missed and false cells over the
    laboratories, and each laboratory's share there.

    found: see analyzed_cells, of an engine whose own threshold is not above 0.15.

    Raises UsageError without a red cell.
    """
    totals: dict[str, np.ndarray] = {}
    for field, boxes, scores in found:
        counts = totals.setdefault(field.laboratory, np.zeros((len(_THRESHOLDS), 2)))
        for row, threshold in enumerate(_THRESHOLDS):
            kept = scores >= threshold
            errors = cell_errors(field, boxes[kept], scores[kept])
            counts[row] += (errors.missed + errors.false, errors.true)
    shares = {name: c[:, 0] / c[:, 1] for name, c in totals.items() if c[0, 1]}
    if not shares:
        raise UsageError(
            "no held-out field has boxes of red cells to choose the score threshold by; add a "
            "dataset of format boxes to the collection"
        )
    best = int(np.argmin(np.mean(list(shares.values()), axis=0)))
    return float(_THRESHOLDS[best]), {name: float(s[best]) for name, s in shares.items()}
