"""Write findings and run.json as HTML in pieces: pictures are never in memory twice."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.report.contents import (
    FIELDS_LISTED,
    FLAGS,
    PATCHES_PER_END,
    Findings,
    Patch,
    PicturedField,
    SlideFindings,
)
from rbc_engine.sinks.report.pictures import FIELD_LONG_SIDE_PX
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.stats.corrected import corrected_share
from rbc_engine.stats.grade import CAVEAT, ICSH_2015, TypeShare, cut_offs, type_shares
from rbc_engine.stats.not_told import not_told
from rbc_engine.text import printable
from rbc_engine.types.kinds import Kind
from rbc_engine.types.results import FieldFlag

__all__ = ["render"]

_FOLDER = Path(__file__).parent
_SCRIPTS = ("dom.js", "table.js", "slides.js", "gallery.js", "viewer.js", "fields.js", "main.js")


def render(findings: Findings, pack: Pack, run: RunRecord, *, written: str) -> Iterator[bytes]:
    """Yield UTF-8 pieces of one HTML file that loads nothing from anywhere.

    run: what run.json holds. written: when, for people.
    """
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    style = (_FOLDER / "page.css").read_text("utf-8")
    parts = ((_FOLDER / name).read_text("utf-8") for name in _SCRIPTS)
    # After the first paint: until then the browser has the parts that need no script to show.
    script = (
        '"use strict";\nrequestAnimationFrame(() => setTimeout(() => {\n'
        + "\n".join(parts)
        + "}));\n"
    )
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    pictured = sorted(
        (picture for slide in findings.slides for picture in findings.pictures.of(slide)),
        key=lambda picture: picture.row.number,
    )
    pieces = environment.get_template("page.html").generate(
        pack=pack.manifest,
        run=_plain(run),
        written=written,
        red_regions=sum(found.counts.red_regions for found in findings.slides.values()),
        kinds=_detected_kinds(pack),
        stages=_stages(run),
        facts=_facts(run, pack),
        settings=_flat(run.settings.to_json()),
        field_prior=run.settings.field_prior,
        drift=_drift(run, pack),
        types=[
            {"label": _label(name), "abnormal": name in pack.manifest.abnormal, **_cuts(name)}
            for name in pack.types
        ],
        icsh=ICSH_2015,
        told=", ".join(_label(name) for name in pack.types),
        not_told=not_told(pack.types),
        measured=_measured(pack),
        caveat=CAVEAT,
        left_out=_left_out(findings, pictured),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        style_sha256=_sha256(style),
        script_sha256=_sha256(script),
        data=Markup(embedded(_data(findings, pack, pictured))),  # noqa: S704
        pictures=(_picture(picture) for picture in pictured),
        patches=(embedded(_patches(findings, slide, pack)) for slide in findings.slides),
        as_is=Markup,
    )
    return (piece.encode("utf-8", "backslashreplace") for piece in pieces)


def embedded(value: Any) -> str:
    """Return JSON safe in a <script> block: ASCII only, without < > &, so nothing can end it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _label(name: str) -> str:
    return name.replace("_", " ")


def _detected_kinds(pack: Pack) -> list[Kind]:
    """List the kinds other than red that the pack's detector finds."""
    return [kind for kind in sorted(map(Kind.of, pack.manifest.detector.kinds)) if kind]


def _measured(pack: Pack) -> str:
    """Say on whose smears the pack was trained and measured."""
    dataset, accuracy = pack.manifest.training.get("dataset"), pack.manifest.accuracy
    counts = [(accuracy.get("fields"), "fields"), (accuracy.get("smear_groups"), "smears")]
    of = " of ".join(f"{count} {what}" for count, what in counts if count)
    trained = f"It was trained on {dataset}. " if dataset else ""
    return f"{trained}Its accuracy was measured on {of} held out of training." if of else trained


def _cuts(name: str) -> dict[str, Any]:
    cuts = cut_offs(name)
    return {
        "few": cuts.few,
        "moderate": cuts.moderate,
        "many": cuts.many,
        "published": cuts.published,
    }


def _data(findings: Findings, pack: Pack, pictured: list[PicturedField]) -> dict[str, Any]:
    """Return the data of the script's tables and boxes.

    Fields are identified by their number in the run.
    """
    slide_number = {slide: index for index, slide in enumerate(findings.slides)}
    listed = {row.number: row for row in findings.rows}
    listed |= {picture.row.number: picture.row for picture in pictured}
    rows = list(listed.values())
    abnormal = set(pack.manifest.abnormal)
    return {
        "types": [
            {"label": _label(name), "abnormal": name in abnormal, **_cuts(name)}
            for name in pack.types
        ],
        "threshold": pack.manifest.caller.threshold,
        "flags": [_label((flag.name or "").lower()) for flag in FLAGS],
        "flagBits": [int(flag) for flag in FLAGS],
        "kinds": [
            {"label": _label(kind.label), "number": int(kind)} for kind in _detected_kinds(pack)
        ],
        "unfamiliar": [row.number for row in rows if FieldFlag.UNFAMILIAR in row.field_flags],
        "uncovered": [row.number for row in rows if FieldFlag.UNCOVERED in row.field_flags],
        "slides": [_slide(found, pack) for found in findings.slides.values()],
        "fields": {
            "number": [row.number for row in rows],
            "slide": [slide_number[row.slide] for row in rows],
            "name": [printable(row.name) for row in rows],
            "width": [row.width for row in rows],
            "height": [row.height for row in rows],
            "regions": [row.regions for row in rows],
            "abnormal": [row.abnormal for row in rows],
            "whole": [row.whole for row in rows],
            "wholeAbnormal": [row.whole_abnormal for row in rows],
            "flags": [row.flags for row in rows],
            "white": [row.white_cells for row in rows],
            "platelets": [row.platelets for row in rows],
            "saturated": [row.number for row in rows if row.saturated],
            "error": {row.number: printable(row.error) for row in rows if row.error is not None},
        },
        "pictured": [picture.row.number for picture in pictured],
    }


def _slide(found: SlideFindings, pack: Pack) -> dict[str, Any]:
    counts = found.counts
    share = (counts.abnormal_fraction, counts.ci_low, counts.ci_high)
    type_counts = counts.type_counts.tolist() or [0] * len(pack.types)
    shares = type_shares(counts, pack.types, abnormal=pack.manifest.abnormal)
    detected, caller = _detected_kinds(pack), pack.manifest.caller
    corrected = corrected_share(
        counts.whole_abnormal,
        counts.whole,
        sensitivity=caller.sensitivity,
        specificity=caller.specificity,
    )
    return {
        "name": printable(counts.slide),
        "fields": counts.fields,
        "failed": counts.failed,
        "regions": counts.red_regions,
        "whole": counts.whole,
        "wholeAbnormal": counts.whole_abnormal,
        "cells": (counts.cells_low, counts.cells_high),
        "abnormal": counts.abnormal,
        "saturated": found.saturated,
        "unfamiliar": found.unfamiliar,
        "flags": found.flags.tolist(),
        "share": _rounded(share),
        "corrected": None if corrected is None else _rounded(corrected),
        "redCells": counts.red_cells,
        "white": counts.white_cells if Kind.WHITE_CELL in detected else None,
        "platelets": counts.platelets if Kind.PLATELET in detected else None,
        "types": [
            _type(count, of_type) for count, of_type in zip(type_counts, shares, strict=True)
        ],
    }


def _type(count: int, found: TypeShare | None) -> dict[str, Any]:
    """Describe a type. count: its regions; cut: those of them that the share omits."""
    if found is None:
        return {"count": count, "cut": count, "share": None, "grades": None}
    return {
        "count": count,
        "cut": count - found.count,
        "share": _rounded((found.share, found.low, found.high)),
        "grades": None if found.grades is None else astuple(found.grades),
    }


def _rounded(share: tuple[float | None, ...]) -> tuple[float, ...] | None:
    """Return a share and the ends of its interval, rounded to six decimals; None without one."""
    known = tuple(round(value, 6) for value in share if value is not None)
    return known or None


def _picture(picture: PicturedField) -> tuple[int, str, str]:
    """Number, base64, and the boxes as JSON."""
    regions = picture.regions
    boxes = []
    for index in range(len(regions)):
        x0, y0, x1, y1 = (round(float(side), 1) for side in regions.boxes[index])
        p = regions.probabilities[index]
        order = p.argsort()[::-1].tolist()
        types = [(at, round(float(p[at]), 3)) for at in order if regions.has[index, at]]
        likeliest = (order[0], round(float(p[order[0]]), 3))
        boxes.append(
            {
                "box": (x0, y0, round(x1 - x0, 1), round(y1 - y0, 1)),
                "p": round(float(regions.abnormal_p[index]), 3),
                "abnormal": int(regions.abnormal[index]),
                "flags": int(regions.flags[index]),
                "cells": (int(regions.cells_low[index]), int(regions.cells_high[index])),
                "types": types,
                **({} if types else {"likeliest": likeliest}),
                **_of_kind(Kind(regions.kinds[index]), float(regions.scores[index])),
            }
        )
    data = base64.b64encode(picture.jpeg).decode("ascii")
    return picture.row.number, data, embedded(boxes)


def _of_kind(kind: Kind, score: float) -> dict[str, Any]:
    """Describe a box of another kind than red, and how sure that is."""
    return {} if kind is Kind.RED else {"kind": int(kind), "score": round(score, 3)}


def _patches(findings: Findings, slide: str, pack: Pack) -> list[list[list[dict[str, Any]]]]:
    """Choose for each type the surest, best first, and the least sure that are not among them."""

    def shown(patch: Patch) -> dict[str, Any]:
        return {
            "field": printable(patch.field),
            "region": patch.region,
            "p": round(patch.p, 3),
            "abnormal": patch.abnormal,
            "abnormalP": round(patch.abnormal_p, 3),
            "cells": patch.cells,
            "flags": patch.flags,
            "jpeg": base64.b64encode(patch.jpeg).decode("ascii"),
        }

    both = []
    for index in range(len(pack.types)):
        surest = list(findings.surest.of((slide, index)))
        seen = {(patch.field, patch.region) for patch in surest}
        least = [
            patch
            for patch in findings.least_sure.of((slide, index))
            if (patch.field, patch.region) not in seen
        ]
        both.append([[shown(patch) for patch in end] for end in (surest, least)])
    return both


def _left_out(findings: Findings, pictured: list[PicturedField]) -> list[str]:
    """Return what the page omits, and why; empty if it shows all."""
    done = sum(found.counts.fields - found.counts.failed for found in findings.slides.values())
    seen = sum(found.seen for found in findings.slides.values())
    stated = []
    if seen < done:
        stated.append(
            f"{done - seen} of {done} fields have no picture here: their images were not kept for "
            "the report"
        )
    if len(pictured) < seen:
        stated.append(
            f"{seen - len(pictured)} of {seen} fields have no picture here, so that the file stays "
            "small: those shown are a random sample of each slide; their numbers count all fields"
        )
    unlisted = findings.fields - len(
        {row.number for row in findings.rows} | {p.row.number for p in pictured}
    )
    if unlisted:
        stated.append(
            f"{unlisted} of {findings.fields} fields are not listed here, only the first "
            f"{FIELDS_LISTED} and those with a picture; fields.csv has all"
        )
    if any(max(picture.row.width, picture.row.height) > FIELD_LONG_SIDE_PX for picture in pictured):
        stated.append(
            f"Pictures of fields are reduced to {FIELD_LONG_SIDE_PX} px on their long side; boxes "
            "keep their place"
        )
    stated.append(
        f"The gallery holds up to {PATCHES_PER_END} of the surest and {PATCHES_PER_END} of the "
        "least sure regions of each type and slide, fewer where many slides share the room"
    )
    return stated


def _facts(run: RunRecord, pack: Pack) -> list[tuple[str, str]]:
    """Return the provenance, as label and text."""
    known = [
        ("Pack", f"{pack.name} {pack.manifest.version}"),
        ("Pack SHA-256", pack.sha256),
        ("Program", " ".join(["rbc-engine", run.program.version or ""])),
        ("Commit", run.program.commit),
        *(
            (key.title(), getattr(run, key))
            for key in ("device", "backend", "precision", "decoder")
        ),
        ("Why no faster one", "; ".join(run.device_notes)),
    ]
    return [(label, printable(str(value))) for label, value in known if value]


def _drift(run: RunRecord, pack: Pack) -> list[tuple[str, str]]:
    """Return how the run's device and precision differ from fp32, by the pack's calibration."""
    if pack.calibration is None:
        return []
    kind = (run.device or "").partition(":")[0]
    verdict = pack.calibration.verdicts.get(f"{kind}:{run.precision}")
    return [] if verdict is None else _flat(verdict.model_dump(mode="json"))


def _stages(run: RunRecord) -> list[dict[str, Any]]:
    seconds = run.stage_seconds
    total = sum(seconds.values()) or 1.0
    return [
        {"name": stage, "seconds": took, "share": took / total} for stage, took in seconds.items()
    ]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return a tree of settings as dotted names and texts."""
    if isinstance(value, dict):
        branches: Iterable[tuple[str, Any]] = value.items()
        return [
            pair
            for key, branch in branches
            for pair in _flat(branch, f"{prefix}.{key}" if prefix else str(key))
        ]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(printable(prefix), printable(text))]


def _plain(run: RunRecord) -> dict[str, Any]:
    """Return what the template reads by name."""
    return {
        "wall_seconds": run.wall_seconds,
        "startup_seconds": run.startup_seconds,
        "network_seconds": run.network_seconds,
        "bottleneck": run.bottleneck,
        "counts": run.counts,
        "warnings": [printable(text) for text in run.warnings],
    }
