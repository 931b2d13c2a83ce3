"""Turn probabilities into calls: the types of each region, and how likely it holds an abnormal
cell.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import treelite

from rbc_engine.errors import PackError
from rbc_engine.lanes.stages.group import FoundRegions
from rbc_engine.packs.manifest import ClassifierSettings, Manifest
from rbc_engine.packs.pack import Pack
from rbc_engine.types.arrays import Float32, UInt8
from rbc_engine.types.kinds import are_red
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["Caller", "called", "types_held", "unsure"]


def types_held(
    probabilities: Float32, *, settings: ClassifierSettings, kinds: UInt8 | None = None
) -> npt.NDArray[np.bool_]:
    """Apply the thresholds to probabilities, float32 [R, T]. Returns bool [R, T], the types that
    each region has.

    kinds: uint8 [R], of Kind, of which only red ones have types; None: all are red.
    """
    has = probabilities >= np.array(settings.thresholds, np.float32)
    if settings.at_least_one and len(has):
        none = ~has.any(axis=1)
        has[none, probabilities[none].argmax(axis=1)] = True
    if kinds is not None:
        has &= are_red(kinds)[:, None]
    return has


def unsure(
    probabilities: Float32, *, settings: ClassifierSettings, kinds: UInt8
) -> npt.NDArray[np.bool_]:
    """Return bool [R], true for red regions that the classifier cannot place.

    Arguments as those of types_held.
    """
    if settings.unsure_below is None or not len(probabilities):
        return np.zeros(len(probabilities), np.bool_)
    likeliest = probabilities.max(axis=1)
    return np.asarray(are_red(kinds) & ~(likeliest >= np.float32(settings.unsure_below)))


def called(
    found: FoundRegions,
    *,
    probabilities: Float32,
    abnormal_p: Float32,
    blurred: bool | npt.NDArray[np.bool_],
    settings: Manifest,
) -> Regions:
    """Make regions of detections and their probabilities.

    probabilities: float32 [R, T]. abnormal_p: float32 [R]. Both are 0 for a region that is not red.
    blurred: the frame is out of focus; or bool [R].
    """
    classifier, kinds = settings.classifier, found.kinds
    flags = found.border.astype(np.uint8) * np.uint8(RegionFlag.BORDER)
    flags |= found.clump.astype(np.uint8) * np.uint8(RegionFlag.CLUMP)
    flags |= np.asarray(blurred, np.uint8) * np.uint8(RegionFlag.BLURRED)
    flags |= unsure(probabilities, settings=classifier, kinds=kinds) * np.uint8(RegionFlag.UNSURE)
    threshold = np.float32(settings.caller.threshold)
    return Regions(
        boxes=found.boxes,
        scores=found.scores,
        kinds=kinds,
        probabilities=probabilities,
        has=types_held(probabilities, settings=classifier, kinds=kinds),
        abnormal_p=abnormal_p,
        abnormal=(abnormal_p >= threshold) & are_red(kinds),
        flags=flags,
        cells_low=found.cells_low,
        cells_high=found.cells_high,
        cells=found.cells,
    )


class Caller:
    """Run the pack's gradient boosting with treelite. One object serves all lanes."""

    def __init__(self, pack: Pack) -> None:
        try:
            self._model = treelite.Model.deserialize_bytes(pack.read("caller.treelite"))
        except treelite.TreeliteError as error:
            raise PackError(
                f"{pack.folder / 'caller.treelite'} is not a treelite checkpoint that this version "
                f"reads: {error}"
            ) from error
        if self._model.num_feature != len(pack.types):
            raise PackError(
                f"{pack.folder / 'caller.treelite'} takes {self._model.num_feature} features, but "
                f"the pack has {len(pack.types)} types; rebuild the pack"
            )

    def __call__(self, probabilities: Float32) -> Float32:
        """Compute abnormal_p, float32 [R], 0..1, from probabilities, float32 [R, T]."""
        if not len(probabilities):
            return np.zeros(0, np.float32)
        verdicts = treelite.gtil.predict(self._model, probabilities, nthread=1)
        abnormal_p: Float32 = np.asarray(verdicts, np.float32).reshape(len(probabilities), -1)[
            :, -1
        ]
        return abnormal_p
