"""Rendered smears as several laboratories would give them, and a collection that names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from rbc_engine.sources.synthetic.field import render_field

from ..fake_chula import write_chula

CLOSE_UP = (160, 150)
CELL_PX = 34.0

COLLECTION = """
schema = 1
name = "fake"

[[dataset]]
name = "typed"
path = "chula"
format = "chula12"
licence = "MIT"
use = "train"
weight = 0.4

[[dataset]]
name = "white"
path = "labs/white"
format = "boxes"
kinds = { rbc = "red", wbc = "white_cell", platelet = "platelet", parasite = "red", other = "unknown" }
licence = "MIT"
use = "train"
healthy = true
held_out_one_in = 3

[[dataset]]
name = "plain"
path = "labs/plain"
format = "boxes"
kinds = { rbc = "red" }
licence = "MIT"
use = "train"
held_out_one_in = 4

[[dataset]]
name = "donors"
path = "labs/donors"
format = "pictures"
middle = "other"
healthy = true
licence = "CC BY 4.0"
use = "train"

[[dataset]]
name = "forbidden"
path = "labs/forbidden"
format = "boxes"
kinds = { rbc = "red" }
licence = "none stated"
use = "measure"
"""


def write_laboratories(folder: Path, *, smears: int = 4) -> Path:
    """Writes the folders of COLLECTION below `folder`; returns its TOML file."""
    write_chula(folder / "chula", groups=smears, fields_per_group=1)
    write_boxes(folder / "labs/white", fields=6, white=True, first_seed=100)
    write_boxes(folder / "labs/plain", fields=4, white=False, first_seed=200)
    write_boxes(folder / "labs/forbidden", fields=2, white=False, first_seed=300)
    donors = folder / "labs/donors/images"
    donors.mkdir(parents=True)
    for number in range(6):
        pixels, _ = close_up(400 + number, white=True)
        Image.fromarray(pixels).save(donors / f"donor-{number}.png")
    path = folder / "fake.toml"
    path.write_text(COLLECTION)
    return path


def write_boxes(folder: Path, *, fields: int, white: bool, first_seed: int) -> None:
    (folder / "images").mkdir(parents=True)
    boxes = {}
    for number in range(fields):
        pixels, rows = close_up(first_seed + number, white=white)
        name = f"{folder.name}-{number}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        boxes[name] = rows
    (folder / "boxes.json").write_text(json.dumps(boxes))


def close_up(seed: int, *, white: bool):
    """Pixels and rows of boxes.json: red cells, and in the middle a white cell with a platelet beside it."""
    width, height = CLOSE_UP
    field = render_field(
        seed=seed, width=width, height=height, cells=9, cell_px=CELL_PX, touching=0.0
    )
    pixels = field.pixels.copy()
    rows = [[*map(float, box), "rbc"] for box in field.cell_boxes]
    if white:
        y, x = np.mgrid[:height, :width] + 0.5
        for label, cx, cy, r in (
            ("wbc", width / 2, height / 2, 26.0),
            ("platelet", width / 2 + 36, height / 2, 6.0),
        ):
            inside = (x - cx) ** 2 + (y - cy) ** 2 < r**2
            pixels[inside] = (pixels[inside] * np.array([0.45, 0.2, 0.5])).astype(np.uint8)
            box = [cx - r, cy - r, cx + r, cy + r]
            rows = [row for row in rows if not _covers(box, row)]
            rows.append([*box, label])
    return pixels, rows


def _covers(box, row) -> bool:
    return box[0] < (row[0] + row[2]) / 2 < box[2] and box[1] < (row[1] + row[3]) / 2 < box[3]


def edit_boxes(folder: Path, change) -> None:
    """change: takes the content of boxes.json and alters it, or returns another."""
    path = folder / "boxes.json"
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


def first_rows(content: Mapping[str, list]) -> list:
    return content[min(content)]
