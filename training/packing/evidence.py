"""Predict the types of held-out regions of all laboratories, as they are and in other stains: what
the caller, the temperatures and the thresholds of a pack are fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.datasets.laboratories.base import CellField
from rbc_engine.training.fit.cell_types.examples import Examples, Role
from rbc_engine.training.fit.restain import restain_patches
from rbc_engine.training.fit.temperature import tempered
from rbc_engine.training.networks.models import Classifier
from rbc_engine.types.arrays import Float32

__all__ = ["Evidence", "predict_evidence"]

_BATCH = 64
_STAIN_SHARES = (0.7, 1.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """Hold predictions for R regions that no network was trained on.

    probabilities: float32 [R, T], of the classifier.
    types: bool [R, T], the truth; of a healthy donor's cell none is known.
    abnormal: bool [R], whether any cell is; of healthy donors none.
    healthy: bool [R], of a healthy donor, without types.
    restained: bool [R], in the stain of another laboratory.
    fields: int64 [R], equal for regions of one field in one stain.
    groups: R names: the smear, or the field of a healthy donor. laboratories: R names.
    """

    probabilities: Float32
    types: npt.NDArray[np.bool_]
    abnormal: npt.NDArray[np.bool_]
    healthy: npt.NDArray[np.bool_]
    restained: npt.NDArray[np.bool_]
    fields: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    laboratories: npt.NDArray[np.str_]

    @property
    def typed(self) -> npt.NDArray[np.bool_]:
        """Return which regions have known types and their own stain, bool [R]."""
        return ~self.healthy & ~self.restained

    def corrected(self, temperatures: npt.NDArray[np.float64], prior: FieldPrior | None) -> Float32:
        """Return the probabilities as the engine hands them to the caller, float32 [R, T]."""
        values = tempered(self.probabilities, temperatures)
        if prior is None:
            return values
        order = np.argsort(self.fields, kind="stable")
        counts = np.unique(self.fields, return_counts=True)[1].tolist()
        result = np.empty_like(values)
        result[order] = prior(values[order], np.ones(len(values), np.bool_), counts)
        return result


@torch.no_grad()
def predict_evidence(
    classifier: Classifier,
    examples: Examples,
    stained: Sequence[CellField],
    *,
    is_abnormal: npt.NDArray[np.bool_],
    settings: ClassifierSettings,
    restained: int,
    seed: int,
) -> Evidence:
    """Predict typed regions and healthy donors' cells, and the typed ones `restained` times more in
    the stain of a field of another laboratory.

    stained: fields whose stains are used. is_abnormal: bool [T].
    """
    classifier.eval()
    rng = np.random.default_rng(seed)
    regions = examples.regions
    typed, healthy = examples.of(Role.TYPED), examples.of(Role.WEAK_NORMAL)
    laboratories = sorted({field.laboratory for field in stained})
    by_laboratory = {
        name: [field.stain for field in stained if field.laboratory == name]
        for name in laboratories
    }
    chosen = [typed, healthy] + [typed] * restained
    probabilities, fields = [], []
    for number, rows in enumerate(chosen):
        targets = None
        if number > 1:
            frames = np.unique(regions.frame_index[rows])
            of_frame = {}
            for frame in frames:
                stains = by_laboratory[laboratories[int(rng.integers(len(laboratories)))]]
                of_frame[int(frame)] = stains[int(rng.integers(len(stains)))]
            drawn = [of_frame[int(frame)] for frame in regions.frame_index[rows]]
            targets = (
                np.stack([stain.background for stain in drawn]),
                np.stack([stain.density for stain in drawn]),
            )
        probabilities.append(_predict(classifier, examples, rows, targets, settings, rng))
        fields.append(regions.frame_index[rows] + number * len(regions.frames))
    rows = np.concatenate(chosen)
    counts = [len(part) for part in chosen]
    types = regions.types[rows]
    names = np.array([f"{examples.laboratories[i]}/{regions.frame_index[i]}" for i in rows])
    is_healthy = np.repeat([number == 1 for number in range(len(chosen))], counts)
    return Evidence(
        probabilities=np.concatenate(probabilities),
        types=types,
        abnormal=np.asarray(types[:, is_abnormal].any(axis=1)),
        healthy=is_healthy,
        restained=np.repeat([number > 1 for number in range(len(chosen))], counts),
        fields=np.concatenate(fields).astype(np.int64),
        groups=np.where(is_healthy, names, regions.groups[rows]),
        laboratories=examples.laboratories[rows],
    )


def _predict(
    classifier: Classifier,
    examples: Examples,
    rows: npt.NDArray[np.int64],
    targets: tuple[Float32, Float32] | None,
    settings: ClassifierSettings,
    rng: np.random.Generator,
) -> Float32:
    chunks = []
    for begin in range(0, len(rows), _BATCH):
        part = slice(begin, begin + _BATCH)
        chosen = rows[part]
        patches = torch.from_numpy(
            examples.regions.patches(chosen, settings, threads=torch.get_num_threads())
        )
        if targets is not None:
            patches = restain_patches(
                patches,
                (examples.background[chosen], examples.density[chosen]),
                (targets[0][part], targets[1][part]),
                rng.uniform(*_STAIN_SHARES, len(chosen)).astype(np.float32),
                mean_rgb=settings.mean_rgb,
                std_rgb=settings.std_rgb,
            )
        _, logits = classifier(patches.contiguous(memory_format=torch.channels_last))
        chunks.append(logits.sigmoid().numpy())
    types = examples.regions.types.shape[1]
    return np.concatenate(chunks).astype(np.float32) if chunks else np.zeros((0, types), np.float32)
