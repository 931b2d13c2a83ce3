"""What the classifier learns from: regions with types, and of other laboratories what is known of their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import UsageError
from rbc_engine.training.datasets.laboratories.base import (
    PLATELET,
    RED,
    WHITE_CELL,
    CellField,
)
from rbc_engine.training.datasets.laboratories.collection import DatasetEntry
from rbc_engine.training.fit.region_set import RegionSet
from rbc_engine.types.arrays import Float32

__all__ = ["Examples", "Role", "gather_examples", "normal_type"]

Mask = npt.NDArray[np.bool_]


class Role(IntEnum):
    """What is known of an example."""

    TYPED = 0
    WEAK_NORMAL = 1
    WHITE_CELL = 2
    PLATELET = 3
    UNLABELLED = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Regions and cells of all laboratories.

    regions: all of them; only those of Role.TYPED have types.
    roles: int8 [R], of Role.
    laboratories: R names.
    background, density: float32 [R, 3], of the stain of the field that each lies in.
    """

    regions: RegionSet
    roles: npt.NDArray[np.int8]
    laboratories: npt.NDArray[np.str_]
    background: Float32
    density: Float32

    def __len__(self) -> int:
        return len(self.roles)

    def of(self, role: Role) -> npt.NDArray[np.int64]:
        """int64, the examples of a role."""
        return np.flatnonzero(self.roles == role)


def gather_examples(
    fields: Sequence[CellField],
    entries: Sequence[DatasetEntry],
    *,
    types: int,
    short_side_px: int,
    cell_canvas_px: float,
) -> Examples:
    """Gathers the examples of all fields.

    types: T. short_side_px: of a typed field on the canvas, which sets the scale of its windows: its cells keep their
        true sizes. cell_canvas_px: side of the median cell of any other field there.

    Raises ValueError if there is none with a known type.
    """
    parts: list[_Part] = []
    healthy = {entry.name for entry in entries if entry.healthy}
    for field in fields:
        if field.labels is not None:
            parts += _typed(field, short_side_px / min(field.pixels.shape[:2]))
        else:
            scale = cell_canvas_px / field.cell_px
            parts += _boxed(field, scale, types=types, healthy=field.laboratory in healthy)
    parts = [part for part in parts if len(part.boxes)]
    if not any(part.role == Role.TYPED for part in parts):
        raise ValueError("no field has a region whose types are known; label some cells first")
    frames = list({id(part.field): part.field for part in parts}.values())
    number = {id(field): index for index, field in enumerate(frames)}
    counts = [len(part.boxes) for part in parts]

    def repeated(values: Sequence[object]) -> npt.NDArray[np.generic]:
        return np.repeat(np.array(values), counts, axis=0)

    return Examples(
        regions=RegionSet(
            frames=[field.pixels for field in frames],
            frame_index=repeated([number[id(part.field)] for part in parts]).astype(np.int32),
            canvas_scales=repeated([part.scale for part in parts]).astype(np.float32),
            boxes=np.concatenate([part.boxes for part in parts]).astype(np.float32),
            types=np.concatenate([part.types for part in parts]),
            cells=np.concatenate([part.cells for part in parts]).astype(np.int64),
            groups=repeated([part.group for part in parts]).astype(np.str_),
        ),
        roles=repeated([part.role for part in parts]).astype(np.int8),
        laboratories=repeated([part.field.laboratory for part in parts]).astype(np.str_),
        background=repeated([part.field.stain.background for part in parts]).astype(np.float32),
        density=repeated([part.field.stain.density for part in parts]).astype(np.float32),
    )


def normal_type(types: Sequence[str], abnormal: Sequence[str]) -> int:
    """Index of the one type that is not abnormal, which cells of healthy donors have.

    Raises UsageError if there are more or none.
    """
    normal = [index for index, name in enumerate(types) if name not in abnormal]
    if len(normal) != 1:
        raise UsageError(
            f"healthy donors teach the one normal type, and the data have {len(normal)} of them "
            f"(types {list(types)}, abnormal {list(abnormal)}); correct the types, or leave the healthy "
            f"datasets out with --without"
        )
    return normal[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Part:
    """Examples of one role in one field; group: as in RegionSet."""

    field: CellField
    role: Role
    scale: float
    group: str
    boxes: Float32
    types: Mask
    cells: npt.NDArray[np.int64]


def _typed(field: CellField, scale: float) -> list[_Part]:
    labels = field.labels
    assert labels is not None
    return [
        _Part(
            field=field,
            role=role,
            scale=scale,
            group=field.group,
            boxes=labels.boxes[chosen],
            types=labels.types[chosen] & (role == Role.TYPED),
            cells=labels.cells[chosen],
        )
        for role, chosen in ((Role.TYPED, labels.known), (Role.UNLABELLED, ~labels.known))
    ]


def _boxed(field: CellField, scale: float, *, types: int, healthy: bool) -> list[_Part]:
    clear, red = field.clear(), field.kinds == RED
    # A neighbour in the window is another cell's word; a patch of such a cell is as good as any for a teacher.
    lone = red & clear & field.lone()
    normal = lone if healthy else np.zeros_like(lone)
    chosen = {
        Role.WEAK_NORMAL: normal,
        Role.WHITE_CELL: (field.kinds == WHITE_CELL) & clear,
        Role.PLATELET: (field.kinds == PLATELET) & clear,
        Role.UNLABELLED: red & clear & ~normal,
    }
    return [
        _Part(
            field=field,
            role=role,
            scale=scale,
            group=field.laboratory,
            boxes=field.boxes[mask],
            types=np.zeros((int(mask.sum()), types), bool),
            cells=np.ones(int(mask.sum()), np.int64),
        )
        for role, mask in chosen.items()
    ]
