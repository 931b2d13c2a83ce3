"""Define how the classifier of cell types is trained on several laboratories."""

from __future__ import annotations

from dataclasses import dataclass

from rbc_engine.training.fit.classifier import ClassifierTraining
from rbc_engine.training.networks.models import ClassifierTrunk

__all__ = ["AUXILIARY", "SOFT_WEIGHT", "UNLABELLED_SHARE", "TypeTraining"]

AUXILIARY = ("white_cell", "platelet")
"""Outputs besides the types, which teach the trunk what is not a red cell; export removes them."""

SOFT_WEIGHT, UNLABELLED_SHARE = 0.7, 0.35
"""Defaults of these options of TypeTraining with teachers; without, both are 0."""


@dataclass(frozen=True, kw_only=True)
class TypeTraining(ClassifierTraining):
    """State how to train. Shares are of the patches of a step; the rest is drawn from the regions
    with types.

    weak_normal_share: whole red cells of healthy donors, nearly all of which are normal.
    weak_normal_target, weak_normal_weight: target of their type `normal`, and its weight.
    white_cell_share, platelet_share: of other laboratories, whose boxes name them.
    clump_share: composed of two typed single cells.
    restain_share: of all patches, those that get the stain of another laboratory.
    strange_stain_share: of the restained patches, those whose stain is varied further, see
        vary_stain.
    blurred_share: of the patches of other laboratories, those blurred like the typed one's, so that
        focus does not distinguish them.
    colour_strength: see vary_colour; in units of 40 grey levels.
    frozen_norms: BatchNorms keep the trunk's initial statistics.
    unlabelled_share: with teachers only: cells and regions without a type label.
    soft_weight: with teachers only: weight of their probabilities relative to a label, 0..1; 1
    where there is no label.
    """

    trunk: ClassifierTrunk = "efficientnet_lite0"
    stages: tuple[tuple[int, int], ...] = ((64, 64_000), (96, 96_000))
    batch: int = 64
    learning_rate: float = 1e-3
    ema_decay: float = 0.995
    colour_strength: float = 1.6
    clump_share: float = 0.12
    weak_normal_share: float = 0.16
    weak_normal_target: float = 0.95
    weak_normal_weight: float = 0.4
    white_cell_share: float = 0.05
    platelet_share: float = 0.03
    restain_share: float = 0.6
    strange_stain_share: float = 0.3
    blurred_share: float = 0.7
    frozen_norms: bool = False
    unlabelled_share: float = 0.0
    soft_weight: float = 0.0
