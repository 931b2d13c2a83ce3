"""Get more from the engine than it ships: detections under its threshold, and the classification of
given boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rbc_engine.devices.base import DeviceArray
from rbc_engine.devices.choose import open_device
from rbc_engine.engine import Engine
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.lanes.stages.call import Caller, types_held
from rbc_engine.lanes.stages.classify import Classify
from rbc_engine.lanes.stages.crop import crop_patches, crop_windows
from rbc_engine.packs.pack import Pack
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.evaluation.findings import Findings
from rbc_engine.types.arrays import Float32
from rbc_engine.types.frames import Frame
from rbc_engine.types.regions import Regions

__all__ = ["SCORE_FLOOR", "classify_true_boxes", "open_at_floor"]

SCORE_FLOOR = 0.05
"""torchvision's default: lower scores add almost nothing to an average precision."""


def open_at_floor(pack: Pack, *, device: str, precision: str) -> tuple[Engine, float]:
    """Return an engine that also reports detections under the pack's score threshold, and the
    lowest score it reports.

    A detector of cells is not lowered: doubtful cells would join the regions of surer ones.

    NMS proceeds by falling score, and a field's mix is estimated from its surer regions, so the
    results of such an engine for the detections from the pack's own threshold on are those of the
    pack.
    """
    detector = pack.manifest.detector
    floor = detector.score_threshold
    if detector.unit == "region":
        floor = min(SCORE_FLOOR, floor)
    lowered = pack.manifest.model_copy(
        update={"detector": detector.model_copy(update={"score_threshold": floor})}
    )
    choice = open_device(device, precision=precision, calibration=pack.calibration)
    return Engine.on(replace(pack, manifest=lowered), choice, estimate_scale=True), floor


def classify_true_boxes(engine: Engine, fields: Sequence[LabelledField]) -> Findings:
    """Crop, classify and call the true boxes of the typed regions by the engine's own stages.

    Raises ImageError if a field cannot be read.
    """
    choice, pack = engine.choice, engine.pack
    classify = Classify(choice.device, pack, batch_sizes=choice.batch_patches, meter=engine.meter)
    caller = Caller(pack)
    found = []
    for field in fields:
        boxes = field.boxes[field.known]
        probabilities = np.zeros((0, len(pack.types)), np.float32)
        if len(boxes):
            name = str(field.path)
            frame = Frame(pixels=read_image(field.path, name=name))
            probabilities = classify(_patches(engine, frame, boxes))
            if engine.field_prior is not None:
                every = np.ones(len(boxes), np.bool_)
                probabilities = engine.field_prior(probabilities, every, [len(boxes)])
        abnormal_p = caller(probabilities)
        found.append(
            Regions.by_area(
                boxes=boxes,
                scores=np.ones(len(boxes), np.float32),
                probabilities=probabilities,
                has=types_held(probabilities, settings=pack.manifest.classifier),
                abnormal_p=abnormal_p,
                abnormal=abnormal_p >= np.float32(pack.manifest.caller.threshold),
                flags=np.zeros(len(boxes), np.uint8),
            )
        )
    matches = [np.flatnonzero(field.known) for field in fields]
    return Findings(fields=fields, found=found, matches=matches)


def _patches(engine: Engine, frame: Frame, boxes: Float32) -> DeviceArray:
    manifest, choice = engine.pack.manifest, engine.choice
    fit = fit_canvas((frame.height, frame.width), pixel_um=None, settings=manifest.detector)
    windows = crop_windows(boxes, canvas_scale=fit.scale, settings=manifest.classifier)
    patches: DeviceArray = crop_patches(
        choice.device, [frame], [windows], settings=manifest.classifier, threads=choice.threads
    )
    return patches
