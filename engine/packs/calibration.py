"""Define calibration.json of a model pack: ranges for quantised networks, and an acceptance per
precision.

It is written by `rbc-engine calibrate` and read here; the file may come from an untrusted source.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rbc_engine.errors import PackError
from rbc_engine.packs.manifest import CALIBRATION_NAME
from rbc_engine.packs.plain_values import Count, Notes, PlainText
from rbc_engine.text import printable

__all__ = ["NETWORKS", "Acceptance", "Calibration", "NetworkRanges", "accepts", "parse_calibration"]

NETWORKS = ("detector.onnx", "box_head.onnx", "classifier.onnx")

Range = Annotated[float, Field(gt=0.0, lt=65504.0, allow_inf_nan=False)]
Name = Annotated[PlainText, Field(min_length=1, max_length=200)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkRanges(_Section):
    """Hold what quantising one network needs.

    sha256: of the ONNX file that the ranges belong to.
    method: how they were chosen from the activations, e.g. 'max' or 'percentile 99.99'.
    error: RMS error of the network's outputs over the RMS of the fp32 outputs, by each method
    tried.
    ranges: largest absolute value of each tensor. keep_float: layers that are not quantised.
    """

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    method: Name
    error: dict[Name, Finite]
    ranges: Annotated[dict[Name, Range], Field(max_length=4096)]
    keep_float: Annotated[tuple[Name, ...], Field(max_length=4096)] = ()


class Acceptance(_Section):
    """State whether a device may choose a precision by itself, and what that costs in accuracy.

    reasons: limits that were exceeded; empty if accepted.
    fields, smear_groups: what it was measured on.
    fp32, measured: the task's measures in fp32 and in this precision. flips: share of regions by
    what changed.
    """

    accepted: bool
    reasons: tuple[PlainText, ...] = ()
    device: PlainText
    fields: Count
    smear_groups: Count
    fp32: dict[Name, Finite]
    measured: dict[Name, Finite]
    flips: dict[Name, Finite]

    @model_validator(mode="after")
    def _refused_for_a_reason(self) -> Acceptance:
        if self.accepted == bool(self.reasons):
            raise ValueError("a verdict must have reasons exactly if it does not accept")
        return self


class Calibration(_Section):
    """Hold the whole of calibration.json.

    verdicts: by device and precision, e.g. 'cpu:int8'. notes: on what and with which command it was
    made.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    networks: dict[Name, NetworkRanges]
    verdicts: dict[
        Annotated[str, Field(pattern=r"^[a-z]{1,20}:(bf16|fp16|int8|fp8)$")], Acceptance
    ] = {}
    notes: Notes = {}

    @model_validator(mode="after")
    def _every_network(self) -> Calibration:
        if set(self.networks) != set(NETWORKS):
            raise ValueError(f"networks must be {', '.join(NETWORKS)}")
        return self


def accepts(calibration: Calibration | None, kind: str, precision: str) -> bool:
    """Return whether a device may compute in a precision without being asked to.

    A floating-point precision may unless a verdict refuses it; int8 and fp8 need an explicit
    acceptance. A verdict for the CPU does not apply to a GPU.

    calibration: the pack's, if it has one. kind: of device, e.g. 'cpu'.
    """
    verdict = None if calibration is None else calibration.verdicts.get(f"{kind}:{precision}")
    return precision in ("fp32", "bf16", "fp16") if verdict is None else verdict.accepted


def parse_calibration(data: bytes, *, sha256: dict[str, str]) -> Calibration:
    """Parse calibration.json. sha256: of the pack's networks. Raises PackError if it is invalid, or
    of other networks.
    """
    try:
        calibration = Calibration.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PackError(
            printable(
                f"{CALIBRATION_NAME}: {where:.200}: {first['msg']} (got {first['input']!r:.80}); "
                "calibrate the pack again"
            )
        ) from error
    for name, network in calibration.networks.items():
        if network.sha256 != sha256[name]:
            raise PackError(
                f"{CALIBRATION_NAME} has ranges of another {name} than the pack's (sha256 "
                f"{network.sha256[:12]}…, not {sha256[name][:12]}…); run `rbc-engine calibrate` "
                "for this pack"
            )
    return calibration
