"""Turn probabilities into calls: the types of each region, and how likely it holds an abnormal
cell.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import treelite

from rbc_engine.errors import PackError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.types.arrays import Float32

__all__ = ["Caller", "types_held"]


def types_held(probabilities: Float32, *, settings: ClassifierSettings) -> npt.NDArray[np.bool_]:
    """Apply the thresholds to probabilities, float32 [R, T]. Returns bool [R, T], the types that
    each region has.
    """
    has = probabilities >= np.array(settings.thresholds, np.float32)
    if settings.at_least_one and len(has):
        none = ~has.any(axis=1)
        has[none, probabilities[none].argmax(axis=1)] = True
    return has


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
