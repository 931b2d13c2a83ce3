"""Draw patches of all laboratories for the classifier, by step number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rbc_engine.packs.manifest import ClassifierSettings
from rbc_engine.training.datasets.laboratories.base import CellField, Stain
from rbc_engine.training.fit.augment import blur_some, flip_and_turn, vary_colour, vary_light
from rbc_engine.training.fit.cell_types.examples import Examples, Role
from rbc_engine.training.fit.cell_types.training_options import AUXILIARY, TypeTraining
from rbc_engine.training.fit.classifier import draw_chances
from rbc_engine.training.fit.clumps import ClumpMaker
from rbc_engine.training.fit.region_set import RegionSet
from rbc_engine.training.fit.restain import restain_patches, vary_stain
from rbc_engine.types.arrays import Float32

__all__ = ["TypeBatch", "TypeDraws"]

Indices = npt.NDArray[np.int64]

# Size distinguishes macrocytes from microcytes, so it may vary only a little; in other laboratories
# it is less certain.
_SIZE, _OTHER_SIZE, _ASPECT = 0.06, 0.10, 0.03
_SHIFT = 0.07
_DEVIATION = 40.0
_OUT_OF_FOCUS_PX, _OTHER_RESOLUTION_PX = 1.2, 1.6
_BLUR_SHARE = 0.3
_STAIN_SHARES = (0.5, 1.1)
_UNLIKELY = 1e-4
# In the counts of a step, in addition to the roles.
_CLUMPS = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class TypeBatch:
    """Hold what the classifier sees in a step; T types and then AUXILIARY.

    patches: float32 [B, 3, P, P], normalised, augmented.
    wanted: float32 [B, T + 2], 0..1. weights: float32 [B, T + 2], of each in the loss.
    labelled: bool [B]; for any other patch `wanted` means nothing.
    """

    patches: Tensor
    wanted: Tensor
    weights: Tensor
    labelled: Tensor


class TypeDraws:
    """Draw batches of patches."""

    def __init__(
        self,
        examples: Examples,
        fields: Sequence[CellField],
        *,
        normal: int,
        settings: ClassifierSettings,
        training: TypeTraining,
    ) -> None:
        """Prepare the draws. fields: whose stains are put on the patches. normal: index of the type
        of weak normals.
        """
        self._examples = examples
        self._normal = normal
        self._settings = settings
        self._training = training
        self._pools = {role: examples.of(role) for role in Role}
        typed = self._pools[Role.TYPED]
        self._typed_regions = _taken(examples, typed)
        self._chances = draw_chances(self._typed_regions, training)
        self._clumps = ClumpMaker(self._typed_regions, self._chances)
        self._typed_laboratories = np.unique(examples.laboratories[typed])
        self._unlabelled_chances = _evenly(examples.laboratories[self._pools[Role.UNLABELLED]])
        stains: dict[str, list[Stain]] = {}
        for field in fields:
            stains.setdefault(field.laboratory, []).append(field.stain)
        self._stains = list(stains.values())

    def frequencies(self) -> list[float]:
        """Return T shares of the drawn red cells and regions, without clumps, that hold each
        type.
        """
        counts = self._counts()
        typed, normal = counts[Role.TYPED], counts[Role.WEAK_NORMAL]
        shares = typed * (self._chances @ self._typed_regions.types)
        shares[self._normal] += normal
        return [max(float(share), _UNLIKELY) for share in shares / (typed + normal)]

    def batch(self, step: int) -> TypeBatch:
        """Return the patches of one step."""
        training, settings = self._training, self._settings
        rng = np.random.default_rng([training.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        size_px = training.patch_px(step)
        chosen, roles = self._choose(rng)
        patches = self._examples.regions.cut(
            chosen,
            self._windows(chosen, rng),
            size_px=size_px,
            settings=settings,
            threads=1,
        )
        wanted, weights = self._wanted(chosen, roles)
        stain_of = chosen
        if composed := self._counts()[_CLUMPS]:
            first, second = self._clumps.pairs(composed, rng)
            clumps, types = self._clumps.compose(
                first, second, size_px=size_px, settings=settings, threads=1, rng=rng
            )
            patches = np.concatenate([patches, clumps])
            of_clumps = np.zeros((composed, wanted.shape[1]), np.float32)
            of_clumps[:, : types.shape[1]] = types
            wanted = np.concatenate([wanted, of_clumps])
            weights = np.concatenate([weights, np.ones_like(of_clumps)])
            roles = np.append(roles, np.full(composed, Role.TYPED))
            stain_of = np.append(chosen, self._pools[Role.TYPED][first])
        images = self._changed(torch.from_numpy(patches), stain_of, rng, generator)
        return TypeBatch(
            patches=images.contiguous(memory_format=torch.channels_last),
            wanted=torch.from_numpy(wanted),
            weights=torch.from_numpy(weights),
            labelled=torch.from_numpy(roles != Role.UNLABELLED),
        )

    def _counts(self) -> dict[int, int]:
        """Return the patches of a step by role, and of clumps; typed regions replace what cannot be
        drawn.
        """
        training = self._training
        shares = {
            Role.WEAK_NORMAL: training.weak_normal_share,
            Role.WHITE_CELL: training.white_cell_share,
            Role.PLATELET: training.platelet_share,
            Role.UNLABELLED: training.unlabelled_share,
        }
        counts: dict[int, int] = {
            role: round(training.batch * share) if len(self._pools[role]) else 0
            for role, share in shares.items()
        }
        counts[_CLUMPS] = round(training.batch * training.clump_share)
        counts[Role.TYPED] = training.batch - sum(counts.values())
        return counts

    def _choose(self, rng: np.random.Generator) -> tuple[Indices, npt.NDArray[np.int8]]:
        chances = {Role.TYPED: self._chances, Role.UNLABELLED: self._unlabelled_chances}
        counts = self._counts()
        chosen = [
            rng.choice(self._pools[role], counts[role], p=chances.get(role))
            for role in Role
            if counts[role]
        ]
        indices = np.concatenate(chosen)
        return indices, self._examples.roles[indices]

    def _windows(self, chosen: Indices, rng: np.random.Generator) -> Float32:
        windows = self._examples.regions.windows(chosen, self._settings)
        side = windows[:, 2:] - windows[:, :2]
        centre = (windows[:, 2:] + windows[:, :2]) / 2
        centre = centre + side * rng.uniform(-_SHIFT, _SHIFT, side.shape)
        spread = np.where(self._is_typed_laboratory(chosen), _SIZE, _OTHER_SIZE)[:, None]
        half = (
            side
            / 2
            * np.exp(rng.uniform(-1, 1, (len(side), 1)) * spread)
            * np.exp(rng.uniform(-_ASPECT, _ASPECT, side.shape))
        )
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)

    def _wanted(self, chosen: Indices, roles: npt.NDArray[np.int8]) -> tuple[Float32, Float32]:
        training = self._training
        types = self._examples.regions.types[chosen]
        count = types.shape[1]
        wanted = np.zeros((len(chosen), count + len(AUXILIARY)), np.float32)
        weights = np.ones_like(wanted)
        wanted[:, :count] = types
        weak = roles == Role.WEAK_NORMAL
        wanted[weak, self._normal] = training.weak_normal_target
        weights[weak, :count] = training.weak_normal_weight
        wanted[roles == Role.WHITE_CELL, count + AUXILIARY.index("white_cell")] = 1
        wanted[roles == Role.PLATELET, count + AUXILIARY.index("platelet")] = 1
        weights[roles == Role.UNLABELLED] = 0
        return wanted, weights

    def _changed(
        self,
        images: Tensor,
        stain_of: Indices,
        rng: np.random.Generator,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the patches with another stain, light, focus and colour, rotated.

        stain_of: int64 [B], the example whose stain each patch gets.
        """
        training, settings = self._training, self._settings
        examples = self._examples
        count = len(images)
        elsewhere = ~self._is_typed_laboratory(stain_of)
        sharp = np.flatnonzero(elsewhere & (rng.random(count) < training.blurred_share))
        if len(sharp):
            images[sharp] = blur_some(
                images[sharp], generator=generator, share=1.0, most_px=_OTHER_RESOLUTION_PX
            )
        laboratories = [self._stains[i] for i in rng.integers(len(self._stains), size=count)]
        targets = [stains[int(rng.integers(len(stains)))] for stains in laboratories]
        strange = rng.random(count) < training.strange_stain_share
        targets = [
            vary_stain(stain, rng) if varied else stain
            for stain, varied in zip(targets, strange, strict=True)
        ]
        share = np.where(
            rng.random(count) < training.restain_share, rng.uniform(*_STAIN_SHARES, count), 0
        )
        images = restain_patches(
            images,
            (examples.background[stain_of], examples.density[stain_of]),
            (
                np.stack([stain.background for stain in targets]),
                np.stack([stain.density for stain in targets]),
            ),
            share.astype(np.float32),
            mean_rgb=settings.mean_rgb,
            std_rgb=settings.std_rgb,
        )
        offset = float(np.mean(np.divide(settings.mean_rgb, settings.std_rgb)))
        images = vary_light(images, generator=generator, offset=offset)
        images = blur_some(images, generator=generator, share=_BLUR_SHARE, most_px=_OUT_OF_FOCUS_PX)
        unit = float(np.mean(settings.std_rgb)) / _DEVIATION
        images = vary_colour(
            images * unit,
            generator=generator,
            strength=training.colour_strength,
            offset=offset * unit,
        )
        return flip_and_turn(images / unit, generator=generator)

    def _is_typed_laboratory(self, examples: Indices) -> npt.NDArray[np.bool_]:
        return np.isin(self._examples.laboratories[examples], self._typed_laboratories)


def _evenly(laboratories: npt.NDArray[np.str_]) -> npt.NDArray[np.float64]:
    """Return chances that draw each laboratory as often as any other, float64 [N]."""
    _, laboratory, counts = np.unique(laboratories, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[laboratory] / max(len(counts), 1), np.float64)


def _taken(examples: Examples, chosen: Indices) -> RegionSet:
    regions = examples.regions
    return replace(
        regions,
        frame_index=regions.frame_index[chosen],
        canvas_scales=regions.canvas_scales[chosen],
        boxes=regions.boxes[chosen],
        types=regions.types[chosen],
        cells=regions.cells[chosen],
        groups=regions.groups[chosen],
    )
