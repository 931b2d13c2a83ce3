"""Define what is fixed for each pack that `rbc-engine train` makes: its settings, its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import TypeAdapter, ValidationError

from rbc_engine.errors import UsageError
from rbc_engine.packs.manifest import CallerSettings, ClassifierSettings, DetectorSettings, Manifest
from rbc_engine.training.datasets.base import Dataset
from rbc_engine.training.datasets.formats.chula12 import TYPES
from rbc_engine.training.fit.region_set import load_regions

__all__ = ["CHULA12", "FIELD_PRIOR_CELLS", "PackRecipe", "check_name", "recipe_for"]


@dataclass(frozen=True, kw_only=True)
class PackRecipe:
    """Describe a pack to be trained.

    detector: its score_threshold is the lowest considered; that of the pack is chosen on held-out
    smears.
    """

    name: str
    version: str
    licence: str
    description: str
    detector: DetectorSettings
    classifier: ClassifierSettings
    caller: CallerSettings


# The scale bars drawn into the images, 20 µm = 104 px and 8 µm = 42 px, agree: 0.192 µm per frame
# px. A frame's short side of 480 px is 320 on the canvas.
_UM_PER_CANVAS_PX = 0.192 * 480 / 320

# Rare types are drawn more often in training than they occur, so that 0.5 calls too many of them:
# of 0.3 to 0.95, regions of one cell and of several come out best together here, on held-out
# smears.
_TYPE_THRESHOLD = 0.6
FIELD_PRIOR_CELLS = 20.0
"""See FieldPriorSettings.cells. Of 5 to 80 the regions of held-out smears come out best from 10 to
40.
"""
# Of the dataset's pixels.
_MEAN_RGB = (148, 151, 151)
# The median over its fields of the background that resize_letterbox computes.
_BACKGROUND_LEVEL = 170.0

CHULA12 = PackRecipe(
    name="chula12",
    version="0.4.1",
    licence="MIT",
    description=(
        "Twelve types of red blood cells in stained blood smears. Trained on Chula RBC-12 "
        "(Naruenatthanaset et al. 2021, arXiv 2012.01321, MIT). For research; not a medical device."
    ),
    detector=DetectorSettings(
        short_side_px=320,
        um_per_canvas_px=_UM_PER_CANVAS_PX,
        mean_rgb=_MEAN_RGB,
        background_level=_BACKGROUND_LEVEL,
        strides_px=(4, 8, 16, 32),
        anchor_sizes_px=((16.0, 24.0), (32.0, 48.0), (64.0, 96.0), (128.0, 192.0)),
        anchor_aspect_ratios=(0.5, 1.0, 2.0),
        proposals_per_level=1000,
        proposals=1000,
        # Of 0.7 to 0.9 the best average precision on held-out smears, by a little.
        proposal_nms_iou=0.8,
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
        thresholds=(_TYPE_THRESHOLD,) * len(TYPES),
        at_least_one=True,
    ),
    caller=CallerSettings(threshold=0.5),
)

# Canvas px: the long side of the median single cell of Chula RBC-12, whose anchors these are.
_CELL_CANVAS_PX = 27.0
# Side of a window relative to the long side of the median single cell.
_WINDOW_CELLS = 1.7
_MAX_SHORT_SIDE_PX = 2048


def recipe_for(dataset: Dataset) -> PackRecipe:
    """Return CHULA12 for its own dataset; for any other a recipe of its name, at the scale of its
    cells.

    Cells are at least as large on the canvas as those of Chula RBC-12. Nothing is known of µm.

    Raises UsageError for data without types or single cells of a known type, and for cells too
    small in their fields.
    """
    if dataset.name == CHULA12.name:
        return CHULA12
    if not any((field.known & field.isolated).any() for field in dataset.fields):
        raise UsageError(
            f"the {dataset.name} data have no single cell of a known type (types "
            f"{list(dataset.types)}) to set the scale by; name types in types.toml and label some "
            "cells that touch no other"
        )
    short_side_px = CHULA12.detector.short_side_px
    regions = load_regions(dataset.fields, short_side_px=short_side_px)
    sides_px = np.max(regions.boxes[:, 2:] - regions.boxes[:, :2], axis=1) * regions.canvas_scales
    cell_px = float(np.median(sides_px[regions.cells == 1]))
    zoom = max(1.0, _CELL_CANVAS_PX / cell_px)
    if short_side_px * zoom > _MAX_SHORT_SIDE_PX:
        raise UsageError(
            f"the median single cell of the {dataset.name} data is {cell_px / short_side_px:.2g} "
            "of a field's short side long, and must be at least "
            f"{_CELL_CANVAS_PX / _MAX_SHORT_SIDE_PX:.2g}; cut the images into fields"
        )
    return PackRecipe(
        name=dataset.name,
        version="0.1.0",
        licence="that of the training data",
        description=(
            f"{len(dataset.types)} types of red blood cells in stained blood smears. Trained on "
            f"data in the format {dataset.name}. For research; not a medical device."
        ),
        detector=CHULA12.detector.model_copy(
            update={"short_side_px": round(short_side_px * zoom), "um_per_canvas_px": None}
        ),
        classifier=CHULA12.classifier.model_copy(
            update={
                "window_canvas_px": round(_WINDOW_CELLS * cell_px * zoom, 1),
                "thresholds": (_TYPE_THRESHOLD,) * len(dataset.types),
            }
        ),
        caller=CHULA12.caller,
    )


def check_name(name: str) -> None:
    """Raise UsageError if `name` cannot be that of a pack."""
    try:
        TypeAdapter(Annotated[str, Manifest.model_fields["name"]]).validate_python(name)
    except ValidationError as error:
        raise UsageError(
            "--name must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or "
            f"digit (got {name!r:.100})"
        ) from error
