"""Turn a peer's numbers into Regions by the pack's own rules."""

from __future__ import annotations

import numpy as np

from rbc_engine.lanes.stages.call import types_held
from rbc_engine.packs.manifest import Manifest
from rbc_engine.types.arrays import Float32
from rbc_engine.types.results import Regions

__all__ = ["regions_of"]


def regions_of(
    boxes: Float32,
    scores: Float32,
    probabilities: Float32,
    abnormal_p: Float32,
    manifest: Manifest,
) -> Regions:
    """Return Regions. boxes [R, 4], scores [R], probabilities [R, T], abnormal_p [R]."""
    return Regions(
        boxes=boxes,
        scores=scores,
        probabilities=probabilities,
        has=types_held(probabilities, settings=manifest.classifier),
        abnormal_p=abnormal_p,
        abnormal=abnormal_p >= np.float32(manifest.caller.threshold),
        flags=np.zeros(len(boxes), np.uint8),
    )
