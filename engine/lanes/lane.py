"""Process one batch in flight: frames through detect, group, crop, classify and call, as plain
sequential code.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from rbc_engine.devices.base import AnyDevice
from rbc_engine.errors import DeviceError, ImageError
from rbc_engine.lanes.canvas import at_border, fit_canvas
from rbc_engine.lanes.measure import FieldMeasure, measure_field
from rbc_engine.lanes.stages.call import Caller, called
from rbc_engine.lanes.stages.cell_scale import CellScale, Sighting
from rbc_engine.lanes.stages.classify import Classify
from rbc_engine.lanes.stages.crop import (
    crop_patches,
    crop_windows,
    over_regions,
    subjects_of,
)
from rbc_engine.lanes.stages.detect import Detect
from rbc_engine.lanes.stages.doubts.familiar import Familiarity, describe_field
from rbc_engine.lanes.stages.doubts.uncovered import uncovered_share
from rbc_engine.lanes.stages.field_prior import FieldPrior, informative_regions
from rbc_engine.lanes.stages.finite import outside_unit
from rbc_engine.lanes.stages.focus import blurred_frames
from rbc_engine.lanes.stages.group import group
from rbc_engine.lanes.stages.measured_scale import MeasuredScale
from rbc_engine.meter import Meter
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.packs.pack import Pack
from rbc_engine.types.frames import CanvasFit, Decoded, Frame
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldFlag, FieldResult, ScaleSource

__all__ = ["Lane"]


class Lane:
    """Hold buffers, networks and settings of one batch in flight. Used by one thread at a time.

    batch_frames: how many frames of one canvas shape the detector takes at once.
    batch_patches: the fixed batch sizes of the classifier.
    threads: CPU threads for each kernel.
    estimate_scale: see Engine.open. field_prior: None: no field prior.
    """

    def __init__(
        self,
        device: AnyDevice,
        pack: Pack,
        caller: Caller,
        *,
        batch_frames: int,
        batch_patches: Sequence[int],
        threads: int,
        meter: Meter,
        estimate_scale: bool = False,
        field_prior: FieldPrior | None = None,
    ) -> None:
        self.device = device.lane()
        self._owns_device = self.device is not device
        self._manifest = pack.manifest
        self._threads = threads
        self._meter = meter
        self._detect = Detect(self.device, pack, batch=batch_frames, threads=threads, meter=meter)
        self._classify = Classify(self.device, pack, batch_sizes=batch_patches, meter=meter)
        self._caller = caller
        self._scale = _scale_estimate(pack.manifest.detector) if estimate_scale else None
        self._field_prior = field_prior
        self._familiarity = Familiarity.of(pack.manifest.familiarity)

    def prepare(self) -> None:
        """Compile what does not depend on the frames, so that it is done while the first ones are
        read.
        """
        self.device.enter()
        with self._named("classify"):
            self._classify.prepare()
        with self._named("detect"):
            self._detect.prepare_box_head()

    def analyze(self, batch: Sequence[Decoded], *, keep_frames: bool = False) -> list[FieldResult]:
        """Return the results of a batch, in its order. Frames that were not decoded or do not fit
        come back as failed.

        Raises DeviceError, naming the stage, if the device fails.
        """
        started = time.perf_counter()
        errors: dict[int, str] = {}
        frames: list[Frame] = []
        fits: list[CanvasFit] = []
        taken: list[int] = []
        for index, decoded in enumerate(batch):
            frame = decoded.frame
            if frame is None:
                errors[index] = decoded.error or "no frame"
                continue
            try:
                fit = frame.canvas or fit_canvas(
                    (frame.height, frame.width),
                    pixel_um=frame.pixel_um,
                    settings=self._manifest.detector,
                )
            except ImageError as error:
                errors[index] = f"{frame.field or 'the image'}: {error}"
                continue
            frames.append(frame)
            fits.append(fit)
            taken.append(index)
        with self._stage("detect"):
            self.device.enter()
            here = [
                dataclasses.replace(frame, pixels=self.device.upload(frame.pixels))
                for frame in frames
            ]
            measures = [measure_field(frame.on_host().pixels) for frame in frames]
            if self._scale is None:
                sightings = [
                    Sighting(found=found, fit=fit, cell_scale=fit.scale)
                    for found, fit in zip(self._detect(here, fits), fits, strict=True)
                ]
            elif isinstance(self._scale, MeasuredScale):
                sightings = self._scale.detect(here, fits, measures, self._detect)
            else:
                sightings = self._scale.detect(here, fits, self._detect)
            doubts = [
                self._doubts(frame, measure)
                for frame, measure in zip(frames, measures, strict=True)
            ]
        regions, wrong = self._regions(here, sightings, doubts)
        for index, seen, reason in zip(taken, sightings, wrong, strict=True):
            if (seen.found.wrong or reason) is not None:
                field = batch[index].ref.field or "the image"
                errors[index] = f"{field}: {seen.found.wrong or reason}"
        uncovered = [
            self._uncovered(frame, measure, found)
            for frame, measure, found in zip(frames, measures, regions, strict=True)
        ]
        share_s = (time.perf_counter() - started) / max(len(frames), 1)

        done = zip(frames, sightings, regions, doubts, uncovered, strict=True)
        by_index = dict(zip(taken, done, strict=True))
        results = []
        for index, decoded in enumerate(batch):
            ref = decoded.ref
            if index in errors:
                results.append(FieldResult.failed(decoded, errors[index]))
                continue
            frame, sighting, region, (distance, strange), bare = by_index[index]
            um_per_px, um_per_px_from = self._scale_of(frame, sighting)
            results.append(
                FieldResult(
                    slide=ref.slide,
                    field=ref.field,
                    path=str(ref.path),
                    width=frame.width,
                    height=frame.height,
                    regions=region,
                    saturated=sighting.found.saturated,
                    um_per_px=um_per_px,
                    um_per_px_from=um_per_px_from,
                    unfamiliar_distance=distance,
                    uncovered=bare,
                    flags=self._flags(strange=strange, uncovered=bare),
                    seconds=decoded.seconds + share_s,
                    frame=frame.on_host() if keep_frames else None,
                )
            )
        return results

    def close(self) -> None:
        """Free what the lane holds on a device of its own; a device that lanes share stays as it
        is.
        """
        if self._owns_device:
            self.device.enter()
            self.device.close()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with self._meter.stage(name), self._named(name):
            yield

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Make errors of the device name the stage in which it failed."""
        try:
            yield
        except DeviceError as error:
            raise type(error)(f"stage {name} on {self.device.name}: {error}") from error

    def _doubts(self, frame: Frame, measure: FieldMeasure) -> tuple[float | None, bool]:
        """Return how far a frame is from those of the training, and whether that is too far."""
        described = describe_field(measure, (frame.height, frame.width))
        if self._familiarity is None or described is None:
            return None, False
        distance = self._familiarity.distance(described)
        return distance, self._familiarity.is_strange(distance)

    def _uncovered(self, frame: Frame, measure: FieldMeasure, found: Regions) -> float | None:
        of_cells = self._manifest.detector.unit == "cell"
        boxes = found.cells.boxes if of_cells else found.boxes
        with self._meter.stage("detect"):
            return uncovered_share(frame.on_host().pixels, measure, boxes)

    def _flags(self, *, strange: bool, uncovered: float | None) -> FieldFlag:
        most = self._manifest.detector.uncovered_above
        flags = FieldFlag.UNFAMILIAR if strange else FieldFlag(0)
        if uncovered is not None and uncovered > most:
            flags |= FieldFlag.UNCOVERED
        return flags

    def _regions(
        self,
        frames: Sequence[Frame],
        sightings: Sequence[Sighting],
        doubts: Sequence[tuple[float | None, bool]],
    ) -> tuple[list[Regions], list[str | None]]:
        """Group the detections; crop, classify and call the subjects of all frames together.

        doubts: of each frame, see _doubts; the field prior leaves unfamiliar ones alone.

        Returns the regions of each frame, and why they are none where its numbers cannot be
        trusted.
        """
        settings = self._manifest.classifier
        with self._meter.stage("detect"):
            found = [
                group(
                    seen.found,
                    frame_hw=(frame.height, frame.width),
                    scale=seen.fit.scale,
                    settings=self._manifest.detector,
                )
                for frame, seen in zip(frames, sightings, strict=True)
            ]
            subjects = [subjects_of(here, whole_up_to=settings.whole_up_to) for here in found]
        counts = [len(here) for here in subjects]
        blurred: Sequence[bool] = ()
        if sum(counts):
            filled = [index for index, count in enumerate(counts) if count]
            scales = [sightings[index].cell_scale for index in filled]
            with self._stage("crop"):
                windows = [
                    crop_windows(subjects[index].boxes, canvas_scale=scale, settings=settings)
                    for index, scale in zip(filled, scales, strict=True)
                ]
                patches = crop_patches(
                    self.device,
                    [frames[index] for index in filled],
                    windows,
                    settings=settings,
                    threads=self._threads,
                )
            with self._stage("classify"):
                probabilities = self._classify(patches)
            with self._stage("call"):
                blurred = blurred_frames(
                    self.device, patches, windows, canvas_scales=scales, settings=self._manifest
                )
        else:
            probabilities = np.zeros((0, len(self._manifest.types)), np.float32)
        wrong: list[str | None] = [None] * len(frames)
        ends = np.cumsum([0, *counts])
        rows = [slice(begin, end) for begin, end in itertools.pairwise(ends)]
        with self._meter.stage("call"):
            for index, here in enumerate(rows):
                wrong[index] = outside_unit("a probability of the classifier", probabilities[here])
                if wrong[index] is not None:
                    probabilities[here] = 0
            if self._field_prior is not None and len(probabilities):
                informative = [
                    informative_regions(
                        here.scores,
                        at_border(
                            here.boxes, frame_hw=(frame.height, frame.width), scale=seen.fit.scale
                        ),
                    )
                    for frame, seen, here in zip(frames, sightings, subjects, strict=True)
                ]
                corrected = self._field_prior(probabilities, np.concatenate(informative), counts)
                strange = np.repeat([strange for _, strange in doubts], counts)
                probabilities = np.where(strange[:, None], probabilities, corrected)
            abnormal_p = self._caller(probabilities)
            for index, here in enumerate(rows):
                wrong[index] = wrong[index] or outside_unit("abnormal_p", abnormal_p[here])
        results = []
        of_filled = iter(blurred)
        for regions, chosen, here in zip(found, subjects, rows, strict=True):
            results.append(
                called(
                    regions,
                    probabilities=over_regions(
                        probabilities[here], chosen.region, len(regions.boxes)
                    ),
                    abnormal_p=over_regions(abnormal_p[here], chosen.region, len(regions.boxes)),
                    blurred=next(of_filled) if len(chosen) else False,
                    settings=self._manifest,
                )
            )
        return results, wrong

    def _scale_of(self, frame: Frame, seen: Sighting) -> tuple[float | None, ScaleSource]:
        """Return the µm per pixel that a frame was analysed with, and where they come from."""
        if seen.um_per_px is not None:
            return float(seen.um_per_px), "estimated"
        if frame.pixel_um is not None:
            return float(frame.pixel_um), frame.pixel_um_from
        canvas_um = self._manifest.detector.um_per_canvas_px
        return None if canvas_um is None else seen.cell_scale * canvas_um, "assumed"


def _scale_estimate(settings: DetectorSettings) -> CellScale | MeasuredScale:
    if settings.cell_canvas_px is not None and settings.unit == "cell":
        return MeasuredScale(settings)
    return CellScale(settings)
