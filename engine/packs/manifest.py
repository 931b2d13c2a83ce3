"""Define `pack.toml` of a model pack as types. Unknown keys and values outside their range are
refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from rbc_engine.packs.plain_values import Notes, PlainText
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.kinds import Kind

__all__ = [
    "CALIBRATION_NAME",
    "FIELD_FEATURES",
    "FILES",
    "SCHEMA",
    "CallerSettings",
    "ClassifierSettings",
    "DetectorSettings",
    "FamiliaritySettings",
    "FieldPriorSettings",
    "FileRecord",
    "Manifest",
    "Rate",
]

SCHEMA = 2
"""Version of the pack format that this program writes, and the newest that it reads.

Packs of schema 1 say nothing of kinds and cells, and are read with the defaults."""

FILES = ("detector.onnx", "box_head.onnx", "classifier.onnx", "caller.treelite", "golden.npz")
"""The files that every pack has in addition to pack.toml."""

CALIBRATION_NAME = "calibration.json"
"""The additional file of a calibrated pack."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, lt=1e6, allow_inf_nan=False)]
Level = Annotated[float, Field(ge=0.0, le=255.0)]
LevelInt = Annotated[int, Field(ge=0, le=255)]
KindName = Literal["red", "white_cell", "platelet", "artefact"]
TypeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DetectorSettings(_Section):
    """Configure network A, `generate_proposals`, `roi_align`, network B and
    `postprocess_detections`.

    Lengths in `canvas px`: pixels of the resized frame that the detector sees.
    """

    short_side_px: Annotated[int, Field(ge=64, le=4096)]
    """A frame's short side on the canvas, unless its µm per pixel is given and the pack knows its
    own.
    """
    um_per_canvas_px: Positive | None = None
    """The scale at which the detector was trained, µm per canvas px; None if unknown."""
    mean_rgb: Annotated[
        tuple[LevelInt, LevelInt, LevelInt],
        Field(validation_alias=AliasChoices("mean_rgb", "fill_rgb")),
    ]
    """What network A subtracts, needed to fine-tune the pack. Packs before chula12 0.4.1 name it
    fill_rgb.
    """
    background_level: Annotated[float, Field(ge=1.0, le=255.0)] | None = None
    """Mean level of the background to which every frame's canvas is adjusted; None leaves frames as
    they are.
    """
    strides_px: Annotated[tuple[int, ...], Field(min_length=1, max_length=6)]
    """Canvas px between neighbouring anchors of each level of network A's outputs, finest first."""
    anchor_sizes_px: tuple[tuple[Positive, ...], ...]
    """Anchor sides for each level, canvas px."""
    anchor_aspect_ratios: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=9)]
    """Height over width, the same for every level."""
    proposals_per_level: Annotated[int, Field(ge=1, le=3840)]
    """Candidates kept per level before NMS."""
    proposals: Annotated[int, Field(ge=1, le=4000)]
    proposal_nms_iou: Probability
    roi_levels: Annotated[int, Field(ge=1, le=6)]
    """Number of the finest levels that RoIAlign reads."""
    feature_channels: Annotated[int, Field(ge=1, le=2048)]
    """Channels of each level that RoIAlign reads."""
    roi_size: Annotated[int, Field(ge=1, le=32)] = 7
    roi_sampling_ratio: Annotated[int, Field(ge=1, le=8)] = 2
    roi_canonical_px: Positive = 224.0
    """A box of this side (sqrt of its area, canvas px) is read from level log2(stride) =
    roi_canonical_level.
    """
    roi_canonical_level: Annotated[int, Field(ge=0, le=10)] = 4
    score_threshold: Probability
    """The detector's shipped operating point: regions under it are not reported."""
    nms_iou: Probability
    max_regions: Annotated[int, Field(ge=1, le=4000)]
    """Size of the fixed output; a field with more is marked saturated."""
    kinds: Annotated[tuple[KindName, ...], Field(min_length=1)] = ("red",)
    """Kind of each class of network B, in the order of class_logits after the background."""
    unit: Literal["region", "cell"] = "region"
    """What a detection is: a region, or a single cell (regions are unions of touching cells)."""
    touching: Annotated[float, Field(gt=0.0, le=4.0)] = 1.0
    """Red cells touch if the ellipses in their boxes, scaled by this, meet; for unit "cell"."""
    cell_canvas_px: Positive | None = None
    """Root of the area of the box of a median red cell on the canvas; None if unknown."""
    uncovered_above: Probability = 0.3
    """A field is flagged uncovered if no box covers more than this share of its foreground.

    The default is from 150 fields of five laboratories and their true boxes: without every second
    box 0.4 is uncovered, with all of them 0.01, or 0.1 where cells at the border were not boxed.
    """

    @property
    def kind_numbers(self) -> UInt8:
        """Return the number of each kind as a Kind, uint8 [K]."""
        return np.array([Kind.of(name) for name in self.kinds], np.uint8)

    @model_validator(mode="after")
    def _kinds_agree(self) -> DetectorSettings:
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds must not repeat")
        if "red" not in self.kinds:
            raise ValueError("kinds must name red")
        return self

    @model_validator(mode="after")
    def _levels_agree(self) -> DetectorSettings:
        if len(self.anchor_sizes_px) != len(self.strides_px):
            raise ValueError("anchor_sizes_px needs one entry for each of strides_px")
        if len({len(sizes) for sizes in self.anchor_sizes_px}) != 1 or not self.anchor_sizes_px[0]:
            raise ValueError(
                "anchor_sizes_px needs equally many sizes, at least one, on every level"
            )
        if self.roi_levels > len(self.strides_px):
            raise ValueError("roi_levels must not exceed the number of strides_px")
        for stride in self.strides_px:
            if stride < 1 or stride & (stride - 1) or stride > 256:
                raise ValueError(f"strides_px must be powers of two up to 256 (got {stride})")
        if any(b != 2 * a for a, b in zip(self.strides_px, self.strides_px[1:], strict=False)):
            raise ValueError("strides_px must double from level to level")
        return self


class FieldPriorSettings(_Section):
    """Configure the correction for the mix of types in a field, see stages/field_prior.py."""

    frequencies: tuple[Annotated[float, Field(ge=1e-6, le=1.0)], ...]
    """One per type: the share of the regions that held it in training, which the probabilities
    assume.
    """
    cells: Annotated[float, Field(ge=1.0, le=1e6)]
    """Number of cells in a field that weighs as much as these frequencies."""


class ClassifierSettings(_Section):
    """Configure `crop_resize` and the trunk with its heads."""

    patch_px: Annotated[int, Field(ge=16, le=512)]
    window_canvas_px: Positive | None = None
    """Side of the window cut around a region, canvas px, so that cells keep their size in the
    patch; None stretches every region to the patch instead."""
    window_margin: Annotated[float, Field(ge=1.0, le=4.0)]
    """A window is never smaller than this times the region's long side."""
    mean_rgb: tuple[Level, Level, Level]
    std_rgb: tuple[Positive, Positive, Positive]
    thresholds: tuple[Probability, ...]
    """One per type: has_<type> is true if p_<type> is at least this."""
    temperatures: tuple[Positive, ...] | None = None
    """One per type: what the logits were divided by so that the probabilities are calibrated. They
    are part of classifier.onnx already; this is the record of it."""
    field_prior: FieldPriorSettings | None = None
    """None: no field prior."""
    at_least_one: bool = False
    """Give a region where no type reaches its threshold the likeliest one: it holds a cell, and so
    some type.
    """
    whole_up_to: Annotated[int, Field(ge=1, le=4000)] = 4
    """A region of more cells is classified cell by cell; only if unit is "cell"."""
    unsure_below: Probability | None = None
    """A region whose likeliest type is under it is flagged unsure; None flags none."""


class Rate(_Section):
    """State a measured share, and on how many regions."""

    value: Probability
    successes: Annotated[int, Field(ge=0)]
    trials: Annotated[int, Field(ge=1, le=10**9)]

    @model_validator(mode="after")
    def _fits(self) -> Rate:
        if self.successes > self.trials:
            raise ValueError(
                f"successes must not exceed trials {self.trials} (got {self.successes})"
            )
        if abs(self.value - self.successes / self.trials) > _RATE_ROUNDING:
            raise ValueError(
                f"value must be successes over trials, {self.successes / self.trials:.4f} (got "
                f"{self.value})"
            )
        return self


_RATE_ROUNDING = 0.0051


class CallerSettings(_Section):
    """Configure gradient boosting on the probabilities, rounded to float32."""

    threshold: Probability
    """A region is abnormal if abnormal_p is at least this."""
    sensitivity: Rate | None = None
    """Share of abnormal regions that are called so, on smears that training did not see."""
    specificity: Rate | None = None
    """Share of normal regions called normal on such smears; corrects a slide's abnormal share."""

    @model_validator(mode="after")
    def _rates_agree(self) -> CallerSettings:
        rates = [rate for rate in (self.sensitivity, self.specificity) if rate is not None]
        if len(rates) == 1:
            raise ValueError("sensitivity and specificity must be given together")
        if rates and sum(rate.value for rate in rates) <= 1:
            raise ValueError("sensitivity and specificity must sum to more than 1: a guess does")
        return self


FIELD_FEATURES = (
    "background_level",
    "background_red",
    "background_blue",
    "density",
    "density_red",
    "density_green",
    "density_blue",
    "foreground",
    "edge",
    "confidence",
    "arc_spread",
    "outlines",
)
"""What a field is described by, see stages/doubts/familiar.py."""

Finite = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class FamiliaritySettings(_Section):
    """Describe the fields of the training, to tell strange ones; see stages/doubts/familiar.py."""

    features: tuple[str, ...] = FIELD_FEATURES
    """What the numbers below are of, K names in their order."""
    mean: Annotated[tuple[Finite, ...], Field(max_length=100)]
    precision: Annotated[tuple[tuple[Finite, ...], ...], Field(max_length=100)]
    """K rows of K: the inverse of the covariance within and between laboratories."""
    threshold: Positive
    """A field at a larger distance is flagged unfamiliar."""
    false_alarms: Probability | None = None
    """Share of the training's own fields that are, each measured without the fields of its
    smear."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> FamiliaritySettings:
        if self.features != FIELD_FEATURES:
            raise ValueError(
                f"features must be {', '.join(FIELD_FEATURES)} (got {', '.join(self.features)}); "
                "make the pack again with this version"
            )
        count = len(FIELD_FEATURES)
        if len(self.mean) != count or [len(row) for row in self.precision] != [count] * count:
            raise ValueError(f"mean needs {count} numbers, and precision {count} rows of {count}")
        matrix = np.array(self.precision)
        if not np.allclose(matrix, matrix.T, rtol=1e-3, atol=1e-3) or (
            float(np.linalg.eigvalsh(matrix).min()) <= 0
        ):
            raise ValueError("precision must be symmetric, and its eigenvalues over 0")
        return self


class FileRecord(_Section):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1, le=512 * 2**20)]


class Manifest(_Section):
    """Hold the whole of pack.toml."""

    schema_: Annotated[Literal[1, 2], Field(alias="schema")]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.-]+)?$")]
    licence: Annotated[PlainText, Field(min_length=1, max_length=100)]
    description: PlainText = ""
    types: Annotated[tuple[TypeName, ...], Field(min_length=1, max_length=256)]
    abnormal: tuple[TypeName, ...]
    """The types that make a cell abnormal."""
    detector: DetectorSettings
    classifier: ClassifierSettings
    caller: CallerSettings
    familiarity: FamiliaritySettings | None = None
    """None: whether a field is unlike the training is not measured."""
    training: Notes = {}
    """What it was trained on, with which commit and command: for people, not read by the engine."""
    accuracy: Notes = {}
    """Its measured accuracy, and the data of the measurement."""
    files: dict[str, FileRecord]

    @field_validator("files")
    @classmethod
    def _only_known_files(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        unknown = sorted(set(files) - {*FILES, CALIBRATION_NAME})
        missing = sorted(set(FILES) - set(files))
        if unknown or missing:
            raise ValueError(f"files must be {list(FILES)} (missing {missing}, unknown {unknown})")
        return files

    @model_validator(mode="after")
    def _types_agree(self) -> Manifest:
        if len(set(self.types)) != len(self.types):
            raise ValueError("types must not repeat")
        strangers = sorted(set(self.abnormal) - set(self.types))
        if strangers:
            raise ValueError(f"abnormal names {strangers}, which are not among types")
        classifier = self.classifier
        prior = classifier.field_prior
        for name, values in (
            ("thresholds", classifier.thresholds),
            ("temperatures", classifier.temperatures),
            ("field_prior.frequencies", None if prior is None else prior.frequencies),
        ):
            if values is not None and len(values) != len(self.types):
                raise ValueError(
                    f"classifier.{name} needs one number per type, {len(self.types)} (got "
                    f"{len(values)})"
                )
        return self
