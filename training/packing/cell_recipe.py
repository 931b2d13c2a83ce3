"""Define the pack whose detector finds single cells of several kinds: its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.fit.cell_types.training_options import TypeTraining
from rbc_engine.training.fit.cells.training_options import CELL_CANVAS_PX
from rbc_engine.training.networks.efficientnet_lite import LITE_LEVELS, LITE_TRUNKS
from rbc_engine.training.recipes import CHULA12, PackRecipe

__all__ = ["CELL_KINDS", "CELL_RECIPE", "classifier_settings"]

CELL_KINDS = ("red", "white_cell", "platelet")
"""The kinds that its detector distinguishes."""

# Root of the box area of the median single cell of Chula RBC-12, in its pictures' pixels of 0.192
# µm, of which the short side has 480.
_CHULA_CELL_PX = 39.6
_CHULA_SHORT_SIDE_PX = 480
_SHORT_SIDE_PX = round(_CHULA_SHORT_SIDE_PX * CELL_CANVAS_PX / _CHULA_CELL_PX)
_ZOOM = _SHORT_SIDE_PX / CHULA12.detector.short_side_px
_UM_PER_PX = 0.192

assert CHULA12.classifier.window_canvas_px is not None

CELL_RECIPE: PackRecipe = replace(
    CHULA12,
    version="0.5.0",
    description=(
        "Twelve types of red blood cells in stained blood smears, distinguished from white cells "
        "and platelets. Trained on Chula RBC-12 (Naruenatthanaset et al. 2021, arXiv 2012.01321, "
        "MIT) and fields of other laboratories. For research; not a medical device."
    ),
    detector=CHULA12.detector.model_copy(
        update={
            "short_side_px": _SHORT_SIDE_PX,
            "um_per_canvas_px": _UM_PER_PX * _CHULA_SHORT_SIDE_PX / _SHORT_SIDE_PX,
            "kinds": CELL_KINDS,
            "unit": "cell",
            "cell_canvas_px": CELL_CANVAS_PX,
        }
    ),
    # The window shows the same part of a field as before.
    classifier=CHULA12.classifier.model_copy(
        update={"window_canvas_px": round(CHULA12.classifier.window_canvas_px * _ZOOM, 2)}
    ),
)


def classifier_settings(training: TypeTraining, *, types: Sequence[str]) -> ClassifierSettings:
    """Return the settings of a training's patches: of the size of its last stage, normalised as its
    trunk expects.
    """
    changes: dict[str, object] = {
        "patch_px": training.stages[-1][0],
        "thresholds": CELL_RECIPE.classifier.thresholds[:1] * len(types),
    }
    if training.trunk in LITE_TRUNKS:
        mean, std = LITE_LEVELS
        changes |= {"mean_rgb": (mean,) * 3, "std_rgb": (std,) * 3}
    return CELL_RECIPE.classifier.model_copy(update=changes)
