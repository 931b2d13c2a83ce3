"""Count, field by field, what a pack found of the labelled cells of a laboratory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbc_engine.training.datasets.laboratories.base import RED, WHITE_CELL
from rbc_engine.training.datasets.laboratories.judged import JudgedField
from rbc_engine.training.datasets.laboratories.labelled_fields import in_the_middle
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.types.arrays import Float32
from rbc_engine.types.kinds import Kind, are_red
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldFlag, FieldResult

__all__ = ["Share", "Tally", "tally"]

_IOU = 0.5
_COVERED = 0.5

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Hold how many of some items something is true for."""

    hits: int = 0
    items: int = 0

    @classmethod
    def of(cls, mask: Mask) -> Share:
        """Count the true ones of a bool array."""
        return cls(hits=int(mask.sum()), items=mask.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class Tally:
    """Hold the counts of one field.

    isolated_found: labelled red cells that touch nothing, clear of the border, found at IoU 0.5 by
        a red region or a red cell.
    centres_hit: centres of labelled red cells in a red region.
    white_cells_red, white_cells_found: labelled white cells called red, and found as white cells.
    cell_errors: missed and false red cells, over the true ones clear of the border.
    cells_right: bool [D], cell_scores: float32 [D]: of the red cells found, for the average
        precision. cells: true ones clear of the border.
    extra_regions: red regions clear of the border with no labelled cell in them.
    healthy_abnormal: whole red regions of healthy donors called abnormal.
    unsure: red regions clear of the border flagged unsure.
    unfamiliar, uncovered: whether the field has the flag.
    """

    isolated_found: Share
    centres_hit: Share
    white_cells_red: Share
    white_cells_found: Share
    cell_errors: Share
    cells: int
    cells_right: Mask
    cell_scores: Float32
    extra_regions: Share
    healthy_abnormal: Share
    unsure: Share
    unfamiliar: Share
    uncovered: Share


def tally(
    field: JudgedField,
    result: FieldResult,
    *,
    of_cells: bool,
    unsure: bool,
    healthy: bool,
    middle: bool,
) -> Tally:
    """Count one field.

    result: of the engine, with regions.
    of_cells: whether the pack's detector finds single cells; else its regions are taken as cells.
    unsure: whether the pack flags regions unsure.
    healthy: the field is of a healthy donor. middle: what is in its middle is not a red cell.
    """
    regions = result.regions
    assert regions is not None
    red = regions.red
    clear = red & ((regions.flags & RegionFlag.BORDER) == 0)
    red_cells = are_red(regions.cells.kinds)
    anything = np.concatenate([regions.boxes[red], regions.cells.boxes[red_cells]])
    pieces = regions.cells if of_cells else regions
    cell_boxes, scores = pieces.boxes[are_red(pieces.kinds)], pieces.scores[are_red(pieces.kinds)]
    lone = field.boxes[field.isolated()]
    white = field.boxes[field.kinds == WHITE_CELL]
    false, missed, right, for_precision, true = _match_cells(field, cell_boxes, scores)
    return Tally(
        isolated_found=Share.of(_overlaps(lone, anything)),
        centres_hit=Share.of(metrics.centres_hit(regions.boxes[red], field.centres)),
        white_cells_red=Share.of(_called_red(white, cell_boxes, regions)),
        white_cells_found=Share.of(
            _overlaps(white, regions.boxes[regions.kinds == Kind.WHITE_CELL])
        ),
        cell_errors=Share(hits=missed + false, items=true),
        cells=true,
        cells_right=right[for_precision],
        cell_scores=scores[for_precision],
        extra_regions=Share.of(_extra(field, regions.boxes[clear])) if field.complete else Share(),
        healthy_abnormal=Share.of(regions.abnormal[clear & ~_not_red(field, regions, middle)])
        if healthy
        else Share(),
        unsure=Share.of((regions.flags[clear] & RegionFlag.UNSURE) > 0) if unsure else Share(),
        unfamiliar=_flagged(result, FieldFlag.UNFAMILIAR, result.unfamiliar_distance),
        uncovered=_flagged(result, FieldFlag.UNCOVERED, result.uncovered),
    )


def _flagged(result: FieldResult, flag: FieldFlag, measured: float | None) -> Share:
    """Return whether the field has a flag, of no field if what it stands for was not measured."""
    return Share(hits=int(flag in result.flags), items=int(measured is not None))


def _overlaps(truth: Float32, found: Float32) -> Mask:
    """Return which true boxes some found box meets at IoU 0.5, bool [N]."""
    return np.asarray(metrics.box_iou(truth, found).max(axis=1, initial=0.0) >= _IOU)


def _called_red(white: Float32, cell_boxes: Float32, regions: Regions) -> Mask:
    """Return which white cells are called red, bool [N]: a red cell has their place, or lies around
    their centre where nothing else does.
    """
    centres: Float32 = (white[:, :2] + white[:, 2:]) / np.float32(2)
    other = metrics.centres_hit(regions.boxes[~regions.red], centres)
    around = metrics.centres_hit(cell_boxes, centres)
    return np.asarray(_overlaps(white, cell_boxes) | (around & ~other))


def _match_cells(
    field: JudgedField, boxes: Float32, scores: Float32
) -> tuple[int, int, Mask, Mask, int]:
    """Match red cells to the true ones, at the border too; what lies there is then left out.

    Returns the numbers of false and of missed cells, bool [D] for matched, bool [D] for those that
    count for the average precision, and the number of true cells. Of an incomplete field all are
    empty.
    """
    if not field.complete:
        nothing = np.zeros(len(boxes), bool)
        return 0, 0, nothing, nothing, 0
    truth = field.boxes[field.kinds == RED]
    clear = field.clear(truth)
    match = metrics.match_regions(boxes, scores, truth, iou=_IOU)
    hit = match >= 0
    right = hit.copy()
    right[hit] = clear[match[hit]]
    unknown = metrics.covered_share(boxes, field.unknown) >= _COVERED
    wrong = ~hit & field.clear(boxes) & ~unknown
    # Nobody knows whether foreground that nobody boxed is a cell.
    unlabelled = metrics.covered_share(boxes, field.unlabelled) >= _COVERED
    counted = right | (wrong & ~unlabelled)
    true = int(clear.sum())
    return int(wrong.sum()), true - int(right.sum()), right, counted, true


def _extra(field: JudgedField, boxes: Float32) -> Mask:
    """Return which regions hold no labelled cell, bool [R], and are not labelled unknown."""
    centres = (field.boxes[:, :2] + field.boxes[:, 2:]) / 2
    x, y = centres[None, :, 0], centres[None, :, 1]
    held = (x >= boxes[:, 0, None]) & (x <= boxes[:, 2, None])
    held &= (y >= boxes[:, 1, None]) & (y <= boxes[:, 3, None])
    unknown = metrics.covered_share(boxes, field.unknown) >= _COVERED
    return np.asarray(~held.any(axis=1) & ~unknown)


def _not_red(field: JudgedField, regions: Regions, middle: bool) -> Mask:
    """Return which regions are known not to be red cells, bool [R]."""
    other = field.boxes[field.kinds != RED]
    known = _overlaps(regions.boxes, other)
    return known | in_the_middle(regions.boxes, field.frame_hw) if middle else known
