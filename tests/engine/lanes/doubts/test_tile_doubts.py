"""What the tiles of a slide say together."""

from __future__ import annotations

from rbc_engine.lanes.stages.doubts.tile_doubts import TileDoubts
from rbc_engine.types.results import FieldFlag, FieldResult


def summed(*tiles):
    doubts = TileDoubts()
    for distance, uncovered, flags in tiles:
        doubts.add(
            FieldResult(
                slide="s",
                field="f",
                unfamiliar_distance=distance,
                uncovered=uncovered,
                flags=flags,
            )
        )
    return doubts.distance, doubts.uncovered, doubts.flags


def test_most_tiles_decide():
    far, bare, none = FieldFlag.UNFAMILIAR, FieldFlag.UNCOVERED, FieldFlag(0)
    assert summed() == (None, None, none)
    assert summed((None, None, none)) == (None, None, none)
    assert summed((1.0, 0.0, none), (5.0, 0.5, far)) == (3.0, 0.25, none)
    assert summed((1.0, 0.0, none), (5.0, 0.5, far), (6.0, 0.4, far | bare)) == (5.0, 0.3, far)
    # Tiles with nothing on them have no say.
    assert summed((9.0, 0.9, far | bare), (None, None, none)) == (9.0, 0.9, far | bare)
