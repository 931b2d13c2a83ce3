"""Features of a trunk that is not trained: computed once for every region, and stored (Qiu et al. 2019, section 2.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rbc_engine.errors import OutputError
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.fit.region_set import RegionSet
from rbc_engine.training.networks.models import Classifier

__all__ = ["pooled_features"]

Log = Callable[[str], None]


def pooled_features(
    model: Classifier,
    regions: RegionSet,
    *,
    settings: ClassifierSettings,
    stored: Path,
    log: Log,
    batch: int = 64,
) -> Tensor:
    """float32 [R, features]: what the trunk makes of every region, from `stored` if it was computed before.

    stored: an .npz beside the checkpoint; it holds for the same trunk and regions only, and is made again for others.

    Raises OutputError if it cannot be written.
    """
    model.eval()
    key = _digest(model, regions, settings)
    if stored.is_file():
        with np.load(stored, allow_pickle=False) as file:
            if str(file["key"]) == key:
                log(f"features of {len(regions)} regions read from {stored}")
                return torch.from_numpy(file["features"])
        log(f"{stored} is of another trunk or other regions; computing it again")
    chunks = []
    # In float32 whatever the training computes in: they are stored, and another training may read them.
    device = next(model.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for begin in range(0, len(regions), batch):
            chosen = np.arange(begin, min(begin + batch, len(regions)))
            patches = regions.patches(chosen, settings, threads=torch.get_num_threads())
            seen = model.feature_map(torch.from_numpy(patches).to(device))
            chunks.append(seen.mean((2, 3)).cpu().numpy())
            if begin // batch % 50 == 49:
                log(f"features of {begin + len(chosen)} of {len(regions)} regions")
    features = np.concatenate(chunks)
    beside = stored.with_name(stored.name + ".partial")
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as written:
            np.savez(written, key=np.array(key), features=features)
        beside.replace(stored)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {stored}: {error.strerror or error}; free disk space and resume"
        ) from error
    return torch.from_numpy(features)


def _digest(model: Classifier, regions: RegionSet, settings: ClassifierSettings) -> str:
    """Of everything that the features depend on."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    for array in (regions.boxes, regions.frame_index, regions.canvas_scales, *regions.frames):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, value in model.trunk.state_dict().items():
        digest.update(name.encode() + value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
