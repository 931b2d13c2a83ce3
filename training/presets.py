"""Name ways to train: `best` made the shipped pack, `paper` is Qiu et al. 2019, section 3.1."""

from __future__ import annotations

from rbc_engine.training.fit.cell_types.training_options import TypeTraining
from rbc_engine.training.fit.cells.training_options import CellDetectorTraining
from rbc_engine.training.fit.classifier import ClassifierTraining
from rbc_engine.training.fit.detector import DetectorTraining

__all__ = [
    "CELL_DETECTOR_PRESETS",
    "CLASSIFIER_PRESETS",
    "DETECTOR_PRESETS",
    "TYPE_CLASSIFIER_PRESETS",
]

CELL_DETECTOR_PRESETS = {"best": CellDetectorTraining()}
"""For a training on a collection of laboratories, like the next."""

TYPE_CLASSIFIER_PRESETS = {"best": TypeTraining()}

DETECTOR_PRESETS = {
    "best": DetectorTraining(),
    "paper": DetectorTraining(
        trunk="resnet101",
        optimizer="sgd",
        learning_rate=1e-3,
        weight_decay=1e-6,
        batch=10,
        rendered_share=0.0,
        ema_decay=0.0,
    ),
}

CLASSIFIER_PRESETS = {
    "best": ClassifierTraining(),
    "paper": ClassifierTraining(
        trunk="resnet50",
        frozen_trunk=True,
        stages=((224, 1_000_000),),
        batch=64,
        learning_rate=1e-5,
        weight_decay=1e-4,
        dropout=0.0,
        ema_decay=0.0,
        colour_strength=0.0,
        clump_share=0.0,
    ),
}
