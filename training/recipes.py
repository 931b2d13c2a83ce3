"""What is fixed of each pack that `rbc-engine train` makes: its dataset, its settings, its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rbc_engine.manifest import CallerSettings, ClassifierSettings, DetectorSettings
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.chula12 import TYPES, load_chula12

__all__ = ["CHULA12", "RECIPES", "PackRecipe"]


class LoadDataset(Protocol):
    def __call__(self, folder: Path, *, threads: int | None = None) -> Dataset: ...


@dataclass(frozen=True, kw_only=True)
class PackRecipe:
    """A pack to be trained.

    detector: its score_threshold is the lowest that is looked at; that of the pack is chosen on held-out smears.
    """

    name: str
    version: str
    licence: str
    description: str
    load: LoadDataset
    detector: DetectorSettings
    classifier: ClassifierSettings
    caller: CallerSettings


# The scale bars drawn into the images, 20 µm = 104 px and 8 µm = 42 px, agree: 0.192 µm per frame px. A frame's
# short side of 480 px is 320 on the canvas.
_UM_PER_CANVAS_PX = 0.192 * 480 / 320

# Of the dataset's pixels.
_MEAN_RGB = (148, 151, 151)

CHULA12 = PackRecipe(
    name="chula12",
    version="0.1.0",
    licence="MIT",
    description=(
        "Twelve types of red blood cells in stained blood smears. Trained on Chula RBC-12 "
        "(Naruenatthanaset et al. 2021, arXiv 2012.01321, MIT). For research; not a medical device."
    ),
    load=load_chula12,
    detector=DetectorSettings(
        short_side_px=320,
        um_per_canvas_px=_UM_PER_CANVAS_PX,
        fill_rgb=_MEAN_RGB,
        strides_px=(4, 8, 16, 32),
        anchor_sizes_px=((16.0, 24.0), (32.0, 48.0), (64.0, 96.0), (128.0, 192.0)),
        anchor_aspect_ratios=(0.5, 1.0, 2.0),
        proposals_per_level=1000,
        proposals=1000,
        proposal_nms_iou=0.7,
        roi_levels=3,
        feature_channels=128,
        roi_canonical_px=32.0,
        roi_canonical_level=2,
        score_threshold=0.05,
        nms_iou=0.5,
        max_regions=640,
    ),
    classifier=ClassifierSettings(
        patch_px=96,
        window_canvas_px=36.0,
        window_margin=1.1,
        mean_rgb=_MEAN_RGB,
        std_rgb=(40.0, 40.0, 40.0),
        thresholds=(0.5,) * len(TYPES),
        at_least_one=True,
    ),
    caller=CallerSettings(threshold=0.5),
)

RECIPES = {CHULA12.name: CHULA12}
"""By the name that --format takes."""
