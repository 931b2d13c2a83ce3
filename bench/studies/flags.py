"""Measure how reliable the flags of regions are, on fields with labelled cells.

    python -m rbc_engine.bench.studies.flags --data DIR --fields 110       # DIR: Chula RBC-12

Takes fields of all smears in turn, those with clumps first. Regions at the border are excluded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rbc_engine.engine import Engine
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.datasets.formats.table import load_dataset
from rbc_engine.training.evaluation.measures.metrics import match_regions
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["blur", "choose_fields", "measure"]

_NOISE_LEVELS = 2.0


def choose_fields(
    fields: Sequence[LabelledField], *, most: int, seed: int = 0
) -> list[LabelledField]:
    """Choose fields with known regions, one of each smear in turn, those with clumps first."""
    rng = np.random.default_rng(seed)
    by_smear: dict[str, list[LabelledField]] = {}
    for field in (fields[index] for index in rng.permutation(len(fields))):
        if field.known.any():
            by_smear.setdefault(field.group, []).append(field)
    for smear in by_smear.values():
        smear.sort(key=lambda field: not (field.known & (field.cells > 1)).any())
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_smear.values()))
    return [field for field in in_turn if field is not None][:most]


def blur(pixels: UInt8, sigma_px: float, *, seed: int = 0) -> UInt8:
    """Put a field out of focus: blur it with a Gaussian, then add the camera's noise."""
    soft = np.stack(
        [ndimage.gaussian_filter(pixels[..., c].astype(np.float32), sigma_px) for c in range(3)], -1
    )
    noise = np.random.default_rng(seed).normal(0, _NOISE_LEVELS, soft.shape)
    return np.clip(np.rint(soft + noise), 0, 255).astype(np.uint8)


def measure(
    engine: Engine, fields: Sequence[LabelledField], *, sigmas_px: Sequence[float]
) -> dict[str, float]:
    """Measure precision and recall of `clump`, how often the true count lies in the range, and the
    share of blurred fields.
    """
    rows: list[npt.NDArray[np.int64]] = []
    blurred: dict[float, list[bool]] = {sigma: [] for sigma in (0.0, *sigmas_px)}
    for field in fields:
        pixels = read_image(field.path, name=field.path.name)
        for sigma_px, found in _findings(engine, pixels, sigmas_px):
            if not len(found):
                continue
            blurred[sigma_px].append(bool(found.flags[0] & RegionFlag.BLURRED))
            if sigma_px == 0:
                rows.append(_known(field, found))
    cells, clump, low, high = np.concatenate(rows).T
    many = cells > 1
    covered = (low <= cells) & (cells <= high)
    shares = {
        "regions": float(len(cells)),
        "clumps": float(many.sum()),
        "clump_precision": float(many[clump > 0].mean()),
        "clump_recall": float(clump[many].mean()),
        "range_covers": float(covered.mean()),
        "range_covers_clumps": float(covered[many].mean()),
    }
    shares |= {
        f"blurred_at_{sigma:g}_px": float(np.mean(flags)) for sigma, flags in blurred.items()
    }
    return {name: round(value, 4) for name, value in shares.items()}


def _findings(
    engine: Engine, pixels: UInt8, sigmas_px: Sequence[float]
) -> Iterator[tuple[float, Regions]]:
    for sigma_px in (0.0, *sigmas_px):
        regions = engine.analyze(blur(pixels, sigma_px) if sigma_px else pixels).regions
        if regions is not None:
            yield sigma_px, regions


def _known(field: LabelledField, found: Regions) -> npt.NDArray[np.int64]:
    """Return int64 [K, 4]: true cells, clump, cells_low and cells_high of the whole regions with
    every cell labelled.
    """
    match = match_regions(found.boxes, found.scores, field.boxes)
    known = (match >= 0) & field.known[match] & (found.flags & RegionFlag.BORDER == 0)
    clump = found.flags & RegionFlag.CLUMP > 0
    columns = (field.cells[match], clump, found.cells_low, found.cells_high)
    return np.stack([np.asarray(column, np.int64)[known] for column in columns], axis=1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Chula RBC-12")
    parser.add_argument("--pack", default="chula12")
    parser.add_argument("--fields", type=int, default=60, help="how many (60)")
    parser.add_argument("--blur", default="1.5,3", help="Gaussians, px (1.5,3)")
    options = parser.parse_args()
    dataset = load_dataset(options.data, data_format="chula12")
    fields = choose_fields(dataset.fields, most=options.fields)
    sigmas_px = [float(part) for part in options.blur.split(",") if part]
    with Engine.open(options.pack, device="cpu") as engine:
        print(json.dumps(measure(engine, fields, sigmas_px=sigmas_px), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
