"""Render slides to try the engine on, with ground truth on request: `rbc-engine synth`."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rbc_engine.errors import OutputError, UsageError

if TYPE_CHECKING:
    from rbc_engine.sources.synthetic.field import SyntheticField
    from rbc_engine.types.arrays import UInt8

__all__ = ["ImageFormat", "synth"]

_JPEG_QUALITY = 92
_TRUTH_SCHEMA = 1


class ImageFormat(str, Enum):
    """List the file formats of a rendered field."""

    JPG = "jpg"
    PNG = "png"


def synth(
    out: Annotated[Path, typer.Option(help="Folder for the slides, one folder per slide.")],
    slides: Annotated[int, typer.Option(min=1, help="Slides per --mix.")] = 1,
    fields: Annotated[int, typer.Option(min=1, help="Fields per slide.")] = 4,
    size: Annotated[str, typer.Option(help="Size of a field in px, WIDTHxHEIGHT.")] = "1280x960",
    cells: Annotated[int, typer.Option(min=0, help="Red cells per field.")] = 60,
    cell_px: Annotated[
        float | None,
        typer.Option(help="Mean diameter of a cell in px; by default a twelfth of the short side."),
    ] = None,
    touching: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the cells in touching groups.")
    ] = 0.3,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights of the types, [NAME:]TYPE=WEIGHT,TYPE=WEIGHT...; slides are named "
            "NAME-1, NAME-2, ...; repeat for another kind of slide. By default all six types, "
            "mostly oval discs."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same slides.")] = 0,
    image_format: Annotated[
        ImageFormat, typer.Option("--format", help="Format of the fields; jpg has quality 92.")
    ] = ImageFormat.JPG,
    truth: Annotated[
        Path | None,
        typer.Option(help="Folder for truth.json and a mask per field; must be outside --out."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the fields of slides with the same NAMEs."),
    ] = False,
) -> None:
    """Render slides of red cells: ovals, sickles, reticulocytes, granular cells, echinocytes,
    stomatocytes.
    """
    from rbc_engine.sources.synthetic.drawn_cells import TYPES
    from rbc_engine.sources.synthetic.field import render_field

    width, height = _parse_size(size)
    mixes = _parse_mixes(mix)
    if truth is not None and truth.resolve().is_relative_to(out.resolve()):
        raise UsageError(
            f"--truth {truth} lies within --out {out}, where masks would be taken for a slide; "
            f"put it next to it, e.g. --truth {out.resolve().name}-truth"
        )
    for folder in (out, truth):
        if folder is not None:
            _clear(folder, names=list(mixes), overwrite=overwrite)

    records = []
    for kind, (name, weights) in enumerate(mixes.items()):
        for number in range(1, slides + 1):
            slide = f"{name}-{number}"
            look_seed = _derive(seed, kind, number)
            for index in range(1, fields + 1):
                field_seed = _derive(seed, kind, number, index)
                field = render_field(
                    seed=field_seed,
                    look_seed=look_seed,
                    width=width,
                    height=height,
                    cells=cells,
                    cell_px=cell_px,
                    touching=touching,
                    mix=weights,
                )
                image = f"{slide}/field-{index}.{image_format.value}"
                _write_image(out / image, field.pixels)
                if truth is not None:
                    mask = f"{slide}/field-{index}.png"
                    _write_image(truth / mask, field.mask)
                    seeds = {"seed": field_seed, "look_seed": look_seed}
                    records.append({"image": image, "mask": mask, **seeds, **_truth_of(field)})
    if truth is not None:
        _write_json(
            truth / "truth.json",
            {"schema": _TRUTH_SCHEMA, "types": list(TYPES), "fields": records},
        )
    total = len(mixes) * slides
    typer.echo(f"{total} slides of {fields} fields with {cells} cells each written to {out}")


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise UsageError(f"--size must be WIDTHxHEIGHT in px, e.g. 1280x960 (got {text!r})")
    return int(match[1]), int(match[2])


def _parse_mixes(texts: list[str] | None) -> dict[str, dict[str, float]]:
    """Return the weights by type for each name of slides."""
    from rbc_engine.sources.synthetic.field import DEFAULT_MIX, check_mix

    if not texts:
        return {"slide": dict(DEFAULT_MIX)}
    mixes: dict[str, dict[str, float]] = {}
    for text in texts:
        name, colon, weights_text = text.rpartition(":")
        name = name if colon else "slide"
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name):
            raise UsageError(
                f"--mix {text!r}: the name must consist of letters, digits, '_', '.' and '-' (got "
                f"{name!r})"
            )
        if name in mixes:
            raise UsageError(f"--mix names {name!r} twice; begin each with its own NAME:")
        weights: dict[str, float] = {}
        for part in weights_text.split(","):
            kind, _, weight = part.partition("=")
            if kind in weights:
                raise UsageError(f"--mix {text!r} gives {kind} twice")
            try:
                weights[kind] = float(weight)
            except ValueError:
                raise UsageError(
                    f"--mix {text!r} must read [NAME:]TYPE=WEIGHT,TYPE=WEIGHT... (got {part!r})"
                ) from None
        try:
            check_mix(weights)
        except UsageError as error:
            raise UsageError(f"--mix {text!r}: {error}") from None
        mixes[name] = weights
    return mixes


def _derive(*entropy: int) -> int:
    """Return a seed of 32 bits, so that JSON readers keep it exactly."""
    import numpy as np

    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _clear(folder: Path, *, names: list[str], overwrite: bool) -> None:
    """Refuse a folder in use; with overwrite, remove what an earlier run wrote under the same
    names.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not overwrite and any(folder.iterdir()):
            raise OutputError(
                f"{folder} is not empty; name another folder, or pass --overwrite to replace the "
                f"slides named {', '.join(f'{name}-N' for name in names)} in it"
            )
        for name in names:
            for slide in folder.iterdir():
                if re.fullmatch(re.escape(name) + "-[0-9]+", slide.name):
                    for path in slide.glob("field-*"):
                        path.unlink()
                    if not any(slide.iterdir()):
                        slide.rmdir()
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error


def _write_image(path: Path, pixels: UInt8) -> None:
    from PIL import Image

    try:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, quality=_JPEG_QUALITY)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _write_json(path: Path, value: dict[str, Any]) -> None:
    import json

    try:
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _truth_of(field: SyntheticField) -> dict[str, Any]:
    """Describe regions and cells of a field: boxes x0 y0 x1 y1 in px, far edges exclusive, and
    types.
    """
    from rbc_engine.sources.synthetic.drawn_cells import TYPES

    height, width = field.mask.shape
    return {
        "width": width,
        "height": height,
        "pixel_um": field.pixel_um,
        "regions": [
            {
                "box": box,
                "types": [name for name, present in zip(TYPES, has, strict=True) if present],
                "cells": count,
            }
            for box, has, count in zip(
                field.boxes.tolist(), field.types, field.cell_counts.tolist(), strict=True
            )
        ],
        "cells": [
            {"box": box, "type": TYPES[kind]}
            for box, kind in zip(field.cell_boxes.tolist(), field.cell_types.tolist(), strict=True)
        ],
    }
