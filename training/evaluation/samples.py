"""Hold what is scored as flat arrays over all fields, each item with its smear group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.evaluation.findings import Findings
from rbc_engine.training.evaluation.measures import metrics
from rbc_engine.training.evaluation.result import Subset
from rbc_engine.types.arrays import Float32
from rbc_engine.types.regions import Regions

__all__ = [
    "IOUS",
    "DetectionSample",
    "Kind",
    "TypeSample",
    "detection_sample",
    "group_indices",
    "in_subset",
    "region_kinds",
    "type_sample",
]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

IOUS = np.linspace(0.5, 0.95, 10)
"""COCO's."""


class Kind(IntEnum):
    """State how many cells a region holds."""

    NONE = -1
    """No region."""
    UNSURE = 0
    """Nobody counted them all."""
    SINGLE = 1
    SEVERAL = 2


_KIND_OF_SUBSET: dict[Subset, Kind] = {"single_cell": Kind.SINGLE, "several_cells": Kind.SEVERAL}


def in_subset(kinds: Ints, subset: Subset) -> Mask:
    """Return bool [N], the regions of a subset. kinds: int64 [N], of Kind."""
    return kinds >= Kind.NONE if subset == "all" else kinds == _KIND_OF_SUBSET[subset]


def region_kinds(field: LabelledField) -> Ints:
    """Return the Kind of each region, int64 [R]: single only if it is known to hold no other
    cell.
    """
    return np.select(
        [field.known & field.isolated, field.cells >= 2], [Kind.SINGLE, Kind.SEVERAL], Kind.UNSURE
    ).astype(np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionSample:
    """Hold R true regions, D detections and N labelled cells in G groups.

    groups: G.
    truth_groups, truth_kinds: int64 [R]. truth_found: bool [R], matched at IoU 0.5 at the score
    threshold.
    found_groups: int64 [D]. scores: float32 [D].
    right: bool [10, D], whether each detection matches a region at each of IOUS.
    found_kinds: int64 [10, D], the kind of that region. A detection that matches none has the kind
        of the region that it shares most with, or NONE if it lies on background: less than half
        covered by true regions.
    kept: bool [D], at or over the score threshold.
    centre_groups, centre_kinds: int64 [N]; the kind is that of the smallest true region around the
    centre.
    centre_hit: bool [N], in a detection at or over the score threshold.
    """

    groups: int
    truth_groups: Ints
    truth_kinds: Ints
    truth_found: Mask
    found_groups: Ints
    scores: Float32
    right: Mask
    found_kinds: Ints
    kept: Mask
    centre_groups: Ints
    centre_kinds: Ints
    centre_hit: Mask


@dataclass(frozen=True, eq=False, kw_only=True)
class TypeSample:
    """Hold N typed regions with their results in G groups, and M more without results.

    groups: G.
    region_groups, kinds: int64 [N].
    held: bool [N, T], the types of each region. probabilities: float32 [N, T]. has: bool [N, T], as
    predicted.
    field_share: float64 [N], of the typed regions of its field those that hold the rarest of the
    region's types.
    abnormal: bool [N], any of the types is abnormal. abnormal_p: float32 [N]. called: bool [N],
    called abnormal.
    missed_groups, missed_kinds: int64 [M], of the typed regions that no detection matches.
    """

    groups: int
    region_groups: Ints
    kinds: Ints
    held: Mask
    field_share: npt.NDArray[np.float64]
    probabilities: Float32
    has: Mask
    abnormal: Mask
    abnormal_p: Float32
    called: Mask
    missed_groups: Ints
    missed_kinds: Ints


def group_indices(fields: Sequence[LabelledField]) -> tuple[tuple[str, ...], list[int]]:
    """Return the names of the smear groups, sorted, and the index of each field's."""
    names = sorted({field.group for field in fields})
    index = {name: number for number, name in enumerate(names)}
    return tuple(names), [index[field.group] for field in fields]


def detection_sample(findings: Findings, *, score_threshold: float) -> DetectionSample:
    """Make the sample from findings of an engine whose own score threshold is not higher."""
    names, groups = group_indices(findings.fields)
    parts = [
        _detections_of_field(field, found, match, group=group, score_threshold=score_threshold)
        for field, found, match, group in zip(
            findings.fields, findings.found, findings.matches, groups, strict=True
        )
    ]
    return DetectionSample(
        groups=len(names),
        **{name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]},
    )


def type_sample(findings: Findings, *, score_threshold: float, abnormal_types: Mask) -> TypeSample:
    """Make the sample of typed regions that are matched by a detection at or over the score
    threshold.

    abnormal_types: bool [T].
    """
    names, groups = group_indices(findings.fields)
    parts = [
        _types_of_field(field, found, match, group=group, score_threshold=score_threshold)
        for field, found, match, group in zip(
            findings.fields, findings.found, findings.matches, groups, strict=True
        )
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return TypeSample(
        groups=len(names),
        abnormal=np.asarray(joined["held"][:, abnormal_types].any(axis=1)),
        **joined,
    )


def _detections_of_field(
    field: LabelledField,
    found: Regions,
    match: Ints,
    *,
    group: int,
    score_threshold: float,
) -> dict[str, npt.NDArray[Any]]:
    kinds = region_kinds(field)
    # With a last entry for the index -1 of unmatched detections.
    kind_of_match = np.append(kinds, Kind.NONE)
    kept = found.scores >= np.float32(score_threshold)
    truth_found = np.zeros(len(kinds), bool)
    truth_found[match[kept & (match >= 0)]] = True
    matches = np.stack(
        [
            metrics.match_regions(found.boxes, found.scores, field.boxes, iou=float(iou))
            for iou in IOUS
        ]
    )
    nearest = _region_under(found.boxes, field.boxes)
    return {
        "truth_groups": np.full(len(kinds), group),
        "truth_kinds": kinds,
        "truth_found": truth_found,
        "found_groups": np.full(len(kept), group),
        "scores": found.scores,
        "right": matches >= 0,
        "found_kinds": kind_of_match[np.where(matches >= 0, matches, nearest)],
        "kept": kept,
        "centre_groups": np.full(len(field.centres), group),
        "centre_kinds": kind_of_match[_region_around(field)],
        "centre_hit": metrics.centres_hit(found.boxes[kept], field.centres),
    }


def _types_of_field(
    field: LabelledField, found: Regions, match: Ints, *, group: int, score_threshold: float
) -> dict[str, npt.NDArray[Any]]:
    kinds = region_kinds(field)
    matched = np.flatnonzero((match >= 0) & (found.scores >= np.float32(score_threshold)))
    matched = matched[field.known[match[matched]]]
    regions = match[matched]
    missed = np.setdiff1d(np.flatnonzero(field.known), regions)
    common = field.types[field.known].mean(axis=0) if field.known.any() else 1.0
    return {
        "region_groups": np.full(len(matched), group),
        "kinds": kinds[regions],
        "held": field.types[regions],
        "field_share": np.where(field.types[regions], common, 1.0).min(axis=1),
        "probabilities": found.probabilities[matched],
        "has": found.has[matched],
        "abnormal_p": found.abnormal_p[matched],
        "called": found.abnormal[matched],
        "missed_groups": np.full(len(missed), group),
        "missed_kinds": kinds[missed],
    }


def _region_under(boxes: Float32, truth: Float32) -> Ints:
    """Return int64 [D], the true region with which each detection shares the largest area; -1 on
    background.
    """
    nearest = np.full(len(boxes), -1)
    covered = metrics.covered_share(boxes, truth) >= 0.5
    if covered.any():
        nearest[covered] = metrics.box_intersection(boxes[covered], truth).argmax(axis=1)
    return nearest


def _region_around(field: LabelledField) -> Ints:
    """Return int64 [N], the smallest true region whose box holds each labelled centre; -1 if none
    does.
    """
    around = np.full(len(field.centres), -1)
    areas = (field.boxes[:, 2:] - field.boxes[:, :2]).prod(axis=1)
    # Smaller ones come later, and take precedence.
    for index in np.argsort(-areas, kind="stable"):
        around[metrics.centres_hit(field.boxes[index : index + 1], field.centres)] = index
    return around
