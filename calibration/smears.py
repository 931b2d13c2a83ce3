"""Choose fields to calibrate with: from every smear, in every light and stain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from rbc_engine.errors import ImageError, UsageError
from rbc_engine.sources.images.decode import read_image

__all__ = ["FEWEST_FIELDS", "choose_fields"]

FEWEST_FIELDS = 8
"""Fewer would take the ranges from a few cells only (curve: docs/results/calibration.md)."""

_LOOK_PX = 64


def choose_fields(paths_by_smear: Mapping[str, Sequence[Path]], *, count: int) -> list[Path]:
    """Take smears in turn, from each the field whose light and stain differ most from those taken.

    paths_by_smear: image files of each smear.

    Returns `count` paths, or all there are. Raises UsageError if there are fewer than
    FEWEST_FIELDS, ImageError for an image that cannot be read.
    """
    there = sum(map(len, paths_by_smear.values()))
    if min(there, count) < FEWEST_FIELDS:
        raise UsageError(
            f"calibrating takes at least {FEWEST_FIELDS} fields (got {there}, --fields {count}); "
            "add images to --data"
        )
    if there <= count:
        return [path for paths in paths_by_smear.values() for path in paths]
    looks = {path: _look(path) for paths in paths_by_smear.values() for path in paths}
    left = {smear: list(paths) for smear, paths in sorted(paths_by_smear.items())}
    taken: list[Path] = []
    while len(taken) < count:
        for paths in left.values():
            if paths and len(taken) < count:
                taken.append(paths.pop(_furthest(paths, taken, looks)))
    return taken


def _furthest(
    paths: Sequence[Path], taken: Sequence[Path], looks: Mapping[Path, npt.NDArray[np.float64]]
) -> int:
    if not taken:
        return 0
    mine = np.stack([looks[path] for path in paths])
    theirs = np.stack([looks[path] for path in taken])
    distances = np.linalg.norm(mine[:, None] - theirs[None], axis=2).min(axis=1)
    return int(distances.argmax())


def _look(path: Path) -> npt.NDArray[np.float64]:
    """Return the look of an image: mean and spread of its colours in grey levels, float64 [6]."""
    pixels = read_image(path, name=path.name)
    if not pixels.size:
        raise ImageError(f"{path.name}: the image is empty")
    small = np.asarray(Image.fromarray(pixels).resize((_LOOK_PX, _LOOK_PX), Image.Resampling.BOX))
    flat = small.reshape(-1, 3).astype(np.float64)
    return np.concatenate([flat.mean(axis=0), flat.std(axis=0)])
