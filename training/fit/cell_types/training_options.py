"""How the classifier of cell types is trained on several laboratories."""

from __future__ import annotations

from dataclasses import dataclass

from rbc_engine.training.fit.classifier import ClassifierTraining
from rbc_engine.training.networks.models import ClassifierTrunk

__all__ = ["AUXILIARY", "SOFT_WEIGHT", "UNLABELLED_SHARE", "TypeTraining"]

AUXILIARY = ("white_cell", "platelet")
"""Outputs beside the types, which teach the trunk what is no red cell; export leaves them out."""

SOFT_WEIGHT, UNLABELLED_SHARE = 0.7, 0.35
"""What TypeTraining has of these with teachers; without, both are 0."""


@dataclass(frozen=True, kw_only=True)
class TypeTraining(ClassifierTraining):
    """How to train. Shares are of the patches of a step; what they leave is drawn from the regions with types.

    weak_normal_share: whole red cells of healthy donors, which are normal but for a few.
    weak_normal_target, weak_normal_weight: of their type `normal`, what it is to become, and what they weigh.
    white_cell_share, platelet_share: of other laboratories, whose boxes name them.
    clump_share: composed of two typed single cells.
    restain_share: of all patches, those that get the stain of some laboratory.
    blurred_share: of the patches of other laboratories, those blurred as the typed one's are, lest focus tell them apart.
    colour_strength: see vary_colour; in units of 40 grey levels.
    frozen_norms: BatchNorms keep the statistics that the trunk begins with.
    unlabelled_share: with teachers only: cells and regions of which nobody told the type.
    soft_weight: with teachers only: what their probabilities weigh beside a label, 0..1; all where there is no label.
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
    blurred_share: float = 0.7
    frozen_norms: bool = False
    unlabelled_share: float = 0.0
    soft_weight: float = 0.0
