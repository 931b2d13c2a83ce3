"""Hold a classifier's predictions for regions of held-out smears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rbc_engine.training.reproduce.study_files import load_arrays, save_arrays
from rbc_engine.types.arrays import Float32

__all__ = ["HeldOut"]


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOut:
    """Hold R regions with known types.

    images: R names of image files, relative to the dataset's folder.
    groups: R smear groups.
    boxes: float32 [R, 4], pixels of the image.
    cells: int64 [R].
    types: bool [R, T]. probabilities: float32 [R, T], out of fold.
    learnt: bool [R, T], whether the type occurs among the single cells of the training part of the
        region's fold: no model can learn any other.
    """

    images: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    boxes: Float32
    cells: npt.NDArray[np.int64]
    types: npt.NDArray[np.bool_]
    probabilities: Float32
    learnt: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.boxes)

    def save(self, path: Path) -> None:
        """Write a file. Raises OutputError if writing fails."""
        save_arrays(path, {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> HeldOut:
        """Read a file. Raises UsageError if it is damaged."""
        return cls(**load_arrays(path, [field.name for field in fields(cls)]))

    @classmethod
    def joined(cls, parts: Sequence[HeldOut]) -> HeldOut:
        """Join the regions of several folds, one after the other."""
        return cls(
            **{
                field.name: np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            }
        )
