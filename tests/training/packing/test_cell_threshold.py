"""Count missed and false cells of a field, and choose a threshold by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.laboratories.base import RED, WHITE_CELL, CellField, Stain
from rbc_engine.training.packing.cell_threshold import cell_errors, choose_threshold

SIDE = 200


def box(x: float, y: float, side: float = 20.0) -> list[float]:
    return [x, y, x + side, y + side]


def field_of(
    boxes: list[list[float]],
    kinds: list[int] | None = None,
    unknown: list[list[float]] | None = None,
    laboratory: str = "here",
) -> CellField:
    return CellField(
        laboratory=laboratory,
        path=Path("field.png"),
        group="g",
        pixels=np.zeros((SIDE, SIDE, 3), np.uint8),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        kinds=np.array(kinds if kinds is not None else [RED] * len(boxes), np.uint8),
        unknown=np.array(unknown or [], np.float32).reshape(-1, 4),
        cell_px=20.0,
        stain=Stain(background=np.ones(3, np.float32), density=np.ones(3, np.float32)),
    )


def counted(field: CellField, boxes: list[list[float]]) -> tuple[int, int, int]:
    found = np.array(boxes, np.float32).reshape(-1, 4)
    errors = cell_errors(field, found, np.linspace(0.9, 0.8, len(found)).astype(np.float32))
    return errors.true, errors.missed, errors.false


def test_each_true_cell_takes_one_box():
    field = field_of([box(20, 20), box(80, 80), box(120, 20)])
    assert counted(field, [box(21, 20), box(22, 21), box(81, 79)]) == (3, 1, 1)
    assert counted(field, []) == (3, 3, 0)


def test_what_lies_at_the_border_counts_neither_way():
    field = field_of([box(0, 50), box(60, 60)])
    assert counted(field, [box(60, 60)]) == (1, 0, 0)
    assert counted(field, [box(60, 60), box(0, 120)]) == (1, 0, 0)
    assert counted(field, [box(60, 60), box(0, 50)]) == (1, 0, 0), "it matches, and is not counted"


def test_boxes_in_unknown_parts_are_not_false():
    field = field_of([box(60, 60)], unknown=[[100, 100, 160, 160]])
    assert counted(field, [box(60, 60), box(110, 110)]) == (1, 0, 0)
    assert counted(field, [box(60, 60), box(150, 95)]) == (1, 0, 1), "more than half outside"


def test_white_cells_are_no_red_ones():
    field = field_of([box(60, 60), box(120, 120, 40)], kinds=[RED, WHITE_CELL])
    assert counted(field, [box(60, 60), box(120, 120, 40)]) == (1, 0, 1)


def test_the_threshold_weighs_laboratories_alike():
    here = field_of([box(20 + 40 * i, 20) for i in range(4)])
    there = field_of([box(20, 20)], laboratory="there")
    # Here every box is true and unsure; there a false one is as sure.
    boxes = here.boxes
    found = [
        (here, boxes, np.full(4, 0.42, np.float32)),
        (
            there,
            np.array([box(20, 20), box(100, 100)], np.float32),
            np.array([0.9, 0.32], np.float32),
        ),
    ]
    threshold, shares = choose_threshold(found)
    assert 0.32 < threshold <= 0.42
    assert shares == {"here": 0.0, "there": 0.0}


def test_without_a_red_cell_nothing_is_chosen():
    empty = field_of([])
    with pytest.raises(UsageError, match="no held-out field has boxes of red cells"):
        choose_threshold([(empty, empty.boxes, np.zeros(0, np.float32))])
