"""The same rendered smears in every format of labelled data, with their truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from rbc_engine.cli import app
from rbc_engine.sources.synthetic.field import TYPES, SyntheticField, render_field
from rbc_engine.sources.synthetic.truth import label_regions

WIDTH, HEIGHT = 320, 240


def render_fields(*, groups: int, fields_per_group: int) -> list[SyntheticField]:
    """Fields of one group share their look."""
    return [
        render_field(
            seed=number,
            look_seed=number // fields_per_group,
            width=WIDTH,
            height=HEIGHT,
            cells=14,
            cell_px=26.0,
            touching=0.4,
        )
        for number in range(groups * fields_per_group)
    ]


def write_voc(folder: Path, fields: Sequence[SyntheticField]) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for number, field in enumerate(fields):
        Image.fromarray(field.pixels).save(folder / "images" / f"{number}.png")
        cells = zip(cell_names(field), field.cell_boxes.tolist(), strict=True)
        (folder / "annotations" / f"{number}.xml").write_text(voc_xml(cells))
    write_types(folder)


def voc_xml(cells) -> str:
    objects = (
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in cells
    )
    return f"<annotation>{''.join(objects)}</annotation>"


def write_coco(folder: Path, fields: Sequence[SyntheticField]) -> None:
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, field in enumerate(fields):
        Image.fromarray(field.pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": WIDTH})
        for kind, (x0, y0, x1, y1) in zip(
            field.cell_types.tolist(), field.cell_boxes.tolist(), strict=True
        ):
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"image_id": 100 + number, "category_id": 7 + kind, "bbox": box})
    categories = [{"id": 7 + kind, "name": name} for kind, name in enumerate(TYPES)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(content))
    write_types(folder)


def write_masks(folder: Path, fields: Sequence[SyntheticField]) -> None:
    """A row of the table for each region, at its first pixel; no types.toml: the types are the
    paper's.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["image,x,y,types,cells"]
    for number, field in enumerate(fields):
        Image.fromarray(field.pixels).save(folder / "images" / f"{number}.jpg", quality=95)
        Image.fromarray(field.mask).save(folder / "masks" / f"{number}.png")
        labels, _ = label_regions(field.mask > 0)
        for region, count in enumerate(field.cell_counts.tolist()):
            y, x = np.argwhere(labels == region + 1)[0]
            names = ";".join(np.array(TYPES)[field.types[region]])
            rows.append(f"{number}.jpg,{x},{y},{names},{count}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def write_synthetic(folder: Path, *, slides: int) -> None:
    """By the program's own command, a field a slide."""
    arguments = ["synth", "--out", folder / "images", "--truth", folder / "truth"]
    size = ["--size", f"{WIDTH}x{HEIGHT}", "--cells", 14, "--cell-px", 26, "--fields", 1]
    result = CliRunner().invoke(app, [*map(str, [*arguments, *size, "--slides", slides])])
    assert result.exit_code == 0, result.output


def write_types(folder: Path) -> None:
    names = json.dumps(TYPES)
    abnormal = json.dumps(TYPES[1:])
    (folder / "types.toml").write_text(f"types = {names}\nabnormal = {abnormal}\n")


def write_smears(folder: Path, groups: dict[str, str]) -> None:
    rows = [f"{image},{group}" for image, group in groups.items()]
    (folder / "smears.csv").write_text("\n".join(["image,smear_group", *rows]) + "\n")


def cell_names(field: SyntheticField) -> list[str]:
    return [TYPES[kind] for kind in field.cell_types]
