"""Trained classifiers whose probabilities another one learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.networks.models import Classifier

__all__ = ["Teachers"]


class Teachers:
    """Gives the mean of several classifiers' probabilities for the very patches that the student sees."""

    def __init__(
        self,
        teachers: Sequence[tuple[Classifier, ClassifierSettings]],
        *,
        student: ClassifierSettings,
        device: torch.device,
    ) -> None:
        """teachers: with all outputs of their training, auxiliary ones too, and the settings of their patches.

        student: settings of the patches that `__call__` gets; patches of another side or normalisation than a teacher's
            own are brought to them.

        Raises ValueError if there is none.
        """
        if not teachers:
            raise ValueError("a student needs at least one teacher")
        self._teachers = [
            (model.eval().to(device).to(memory_format=torch.channels_last), settings)
            for model, settings in teachers
        ]
        self._student = student
        self._device = device

    @torch.no_grad()
    def __call__(self, patches: Tensor) -> Tensor:
        """patches: float32 [R, 3, P, P] on the device, normalised as the student's. Returns float32 [R, outputs]."""
        # Depthwise convolutions are slow in bfloat16 on a CPU, and these are targets.
        with torch.autocast(self._device.type, enabled=False):
            answers = [
                model(self._as_its_own(patches.float(), settings))[1].sigmoid()
                for model, settings in self._teachers
            ]
            return torch.stack(answers).mean(dim=0)

    def _as_its_own(self, patches: Tensor, settings: ClassifierSettings) -> Tensor:
        side = settings.patch_px
        if patches.shape[-1] != side:
            patches = interpolate(patches, (side, side), mode="bilinear", antialias=True)
        student = self._student
        if (settings.mean_rgb, settings.std_rgb) == (student.mean_rgb, student.std_rgb):
            return patches
        mean, std, own_mean, own_std = (
            torch.tensor(values, device=patches.device).view(1, 3, 1, 1)
            for values in (student.mean_rgb, student.std_rgb, settings.mean_rgb, settings.std_rgb)
        )
        return (patches * std + mean - own_mean) / own_std
