"""Make Figure 8 (Qiu et al. 2019): cut clumps into cells by watershed and by a U-Net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import find_boundaries, watershed

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.datasets.foreground import foreground_mask
from rbc_engine.training.evaluation.measures import statistics
from rbc_engine.training.evaluation.measures.bootstrap import PERCENT, Bootstrap
from rbc_engine.training.evaluation.report.tables import Table, measure_text
from rbc_engine.training.evaluation.result import Measure
from rbc_engine.training.fit.region_set import RegionSet
from rbc_engine.training.reproduce.figures.contact_sheet import GREEN, INK, RED, Tile, contact_sheet
from rbc_engine.training.reproduce.folds import select_regions
from rbc_engine.training.reproduce.study_files import to_png, write_result
from rbc_engine.training.reproduce.unet import CANVAS_PX, predict_cores, train_unet
from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["Separation", "compare_separation", "cut_by_watershed", "write_separation"]

Labels = npt.NDArray[np.int64]
Log = Callable[[str], None]

# Relative to the median cell's radius: least distance of two peaks of the distance to the
# background.
_PEAK_DISTANCES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3)
_SMALLEST_CORE_PX = 25
_SHOWN = 8
_SIDE_PX = 150
_COLUMNS = 6


class Method(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    right_number: Measure
    """Share of the clumps that are cut into as many cells as are labelled."""
    too_few: float
    too_many: float


class Separation(BaseModel):
    """Hold the whole of figure8.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_: Literal[1] = Field(default=1, alias="schema")
    dataset: str
    held_out_groups: tuple[str, ...]
    clumps: int
    peak_distance_px: float
    """Of the watershed, canvas px: the best on the clumps of the other smears."""
    unet_steps: int
    seed: int
    resamples: int
    percent: float = PERCENT
    methods: dict[Literal["watershed", "unet"], Method]


class _Clumps:
    """Hold regions of several cells on canvases of one scale.

    canvases: float32 [C, 3, 128, 128], normalised. masks: bool [C, 128, 128], the clump's own
    pixels.
    cells: int64 [C].
    """

    def __init__(self, regions: RegionSet, settings: ClassifierSettings) -> None:
        sides = (regions.boxes[:, 2:] - regions.boxes[:, :2]).max(axis=1) * regions.canvas_scales
        chosen = np.flatnonzero((regions.cells >= 2) & (sides < CANVAS_PX))
        self.regions = select_regions(regions, _as_mask(chosen, len(regions)))
        self.cells = self.regions.cells
        centres = (self.regions.boxes[:, :2] + self.regions.boxes[:, 2:]) / 2
        half = CANVAS_PX / 2 / self.regions.canvas_scales[:, None]
        windows = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
        everyone = np.arange(len(self.cells))
        self.canvases = self.regions.cut(
            everyone, windows, size_px=CANVAS_PX, settings=settings, threads=1
        )
        self.masks = self._cut_masks(windows)

    def _cut_masks(self, windows: Float32) -> npt.NDArray[np.bool_]:
        masks = np.zeros((len(windows), CANVAS_PX, CANVAS_PX), bool)
        pixel = (np.arange(CANVAS_PX) + 0.5) / CANVAS_PX
        for frame in np.unique(self.regions.frame_index):
            labels, _ = ndimage.label(
                foreground_mask(self.regions.frames[frame]), np.ones((3, 3), bool)
            )
            for index in np.flatnonzero(self.regions.frame_index == frame):
                x0, y0, x1, y1 = self.regions.boxes[index].astype(int)
                inside = labels[y0:y1, x0:x1]
                if not inside.any():
                    continue
                own = np.bincount(inside[inside > 0]).argmax()
                left, top, right, bottom = windows[index]
                x = np.floor(left + pixel * (right - left)).astype(int)
                y = np.floor(top + pixel * (bottom - top)).astype(int)
                there = (
                    (y >= 0)[:, None]
                    & (y < labels.shape[0])[:, None]
                    & (x >= 0)
                    & (x < labels.shape[1])
                )
                seen = labels[y.clip(0, labels.shape[0] - 1)][:, x.clip(0, labels.shape[1] - 1)]
                masks[index] = there & (seen == own)
        return masks


def cut_by_watershed(mask: npt.NDArray[np.bool_], *, peak_distance_px: float) -> Labels:
    """Return int64 [H, W], 0 outside: the basins of the distance to the background, one for each of
    its peaks.

    mask: bool [H, W]. peak_distance_px: peaks nearer to each other than this are one.
    """
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    peaks = peak_local_max(  # type: ignore[no-untyped-call]
        distance,
        min_distance=max(1, round(peak_distance_px)),
        labels=mask.astype(np.int32),
        exclude_border=False,
    )
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    basins = watershed(-distance, markers, mask=mask)  # type: ignore[no-untyped-call]
    return np.asarray(basins, np.int64)


def compare_separation(
    regions: RegionSet,
    *,
    dataset: str,
    held_out: Sequence[str],
    settings: ClassifierSettings,
    unet_steps: int,
    seed: int,
    resamples: int,
    log: Log,
) -> tuple[Separation, list[Tile]]:
    """Train both methods on the smears that are not held out, and measure them on the clumps of
    those that are.

    Returns the measures, and pictures of some of the clumps, drawn at random.

    Raises UsageError if there is no clump to measure on, or nothing to learn from.
    """
    is_held_out = np.isin(regions.groups, held_out)
    learn = _Clumps(select_regions(regions, ~is_held_out), settings)
    unseen = _Clumps(select_regions(regions, is_held_out), settings)
    singles = select_regions(regions, ~is_held_out & (regions.cells == 1))
    if not (len(learn.cells) and len(unseen.cells) and len(singles)):
        raise UsageError(
            "figure 8 needs clumps and single cells in the smears to learn from, and clumps in "
            f"those held out (got {len(learn.cells)}, {len(singles)} and {len(unseen.cells)}); "
            "label more"
        )
    sizes = (singles.boxes[:, 2:] - singles.boxes[:, :2]).mean(axis=1) * singles.canvas_scales
    radius_px = float(np.median(sizes)) / 2
    distances = [factor * radius_px for factor in _PEAK_DISTANCES]
    shares = [
        np.mean(
            _counts([cut_by_watershed(m, peak_distance_px=d) for m in learn.masks]) == learn.cells
        )
        for d in distances
    ]
    peak_distance_px = distances[int(np.argmax(shares))]
    log(
        f"watershed: peaks {peak_distance_px:.1f} px apart, right for {max(shares):.3f} of the "
        "clumps learnt from"
    )
    model = train_unet(singles, settings=settings, steps=unet_steps, batch=16, seed=seed, log=log)
    cut = {
        "watershed": [cut_by_watershed(m, peak_distance_px=peak_distance_px) for m in unseen.masks],
        "unet": [
            _pieces(cores, mask)
            for cores, mask in zip(predict_cores(model, unseen.canvases), unseen.masks, strict=True)
        ],
    }
    names, index = np.unique(unseen.regions.groups, return_inverse=True)
    bootstrap = Bootstrap(len(names), resamples=resamples, seed=seed)
    counts = {name: _counts(labels) for name, labels in cut.items()}
    result = Separation(
        schema=1,
        dataset=dataset,
        held_out_groups=tuple(names.tolist()),
        clumps=len(unseen.cells),
        peak_distance_px=peak_distance_px,
        unet_steps=unet_steps,
        seed=seed,
        resamples=resamples,
        methods={
            name: Method(
                right_number=bootstrap.measure(
                    statistics.share(counts[name] == unseen.cells, index, count=len(names))
                ),
                too_few=float((counts[name] < unseen.cells).mean()),
                too_many=float((counts[name] > unseen.cells).mean()),
            )
            for name in ("watershed", "unet")
        },
    )
    shown = np.random.default_rng(seed).permutation(len(unseen.cells))[:_SHOWN]
    tiles = [tile for i in shown for tile in _tiles(unseen, int(i), cut, settings)]
    return result, tiles


def write_separation(folder: Path, result: Separation, tiles: Sequence[Tile]) -> None:
    """Write figure8.json, figure8.md and figure8.png. Raises OutputError if writing fails."""
    titles = {"watershed": "watershed (scikit-image)", "unet": "U-Net"}
    write_result(
        folder,
        "figure8",
        values=result,
        title="Figure 8: cutting clumps into cells",
        lines=[
            f"{result.clumps} labelled clumps of {len(result.held_out_groups)} smear groups of "
            f"{result.dataset}. The watershed's only parameter is the best on the clumps of the "
            f"other smears; the U-Net was trained for {result.unet_steps} steps on single cells of "
            f"those smears, composed into clumps. In brackets: {result.percent:g} % intervals, "
            f"{result.resamples} resamples of the smear groups. The picture shows clumps drawn at "
            f"random (seed {result.seed})."
        ],
        tables=[
            Table(
                title="Clumps cut into the right number of cells",
                headings=("", "right number", "too few", "too many"),
                rows=[
                    (
                        titles[name],
                        measure_text(method.right_number),
                        f"{method.too_few:.3f}",
                        f"{method.too_many:.3f}",
                    )
                    for name, method in result.methods.items()
                ],
            )
        ],
        pictures={"figure8.png": to_png(contact_sheet(tiles, columns=_COLUMNS, side_px=_SIDE_PX))},
    )


def _as_mask(chosen: Labels, count: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[chosen] = True
    return mask


def _pieces(cores: npt.NDArray[np.bool_], mask: npt.NDArray[np.bool_]) -> Labels:
    """Return int64 [H, W]: the connected cores inside a clump, without crumbs."""
    labels, count = ndimage.label(cores & mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = np.flatnonzero(areas[1:] >= _SMALLEST_CORE_PX) + 1
    renumbered = np.zeros(count + 1, np.int64)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    return np.asarray(renumbered[labels])


def _counts(labels: Sequence[Labels]) -> Labels:
    return np.array([int(one.max(initial=0)) for one in labels])


def _tiles(
    clumps: _Clumps, index: int, cut: dict[str, list[Labels]], settings: ClassifierSettings
) -> list[Tile]:
    mean, std = (np.array(v)[:, None, None] for v in (settings.mean_rgb, settings.std_rgb))
    pixels = clumps.canvases[index] * std + mean
    photo: UInt8 = pixels.clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0)
    cells = int(clumps.cells[index])
    tiles = [Tile(picture=Image.fromarray(photo), lines=[(f"{cells} cells", INK)])]
    for name, title in (("watershed", "watershed"), ("unet", "U-Net")):
        labels = cut[name][index]
        drawn = photo.copy()
        edges = find_boundaries(labels)  # type: ignore[no-untyped-call]
        drawn[edges] = GREEN if labels.max() == cells else RED
        colour = GREEN if labels.max() == cells else RED
        tiles.append(
            Tile(picture=Image.fromarray(drawn), lines=[(f"{title}: {int(labels.max())}", colour)])
        )
    return tiles
