"""Rendered smears in the format of Chula RBC-12, with their truth."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from rbc_engine.sources.synthetic.field import TYPES, SyntheticField, render_field

# Numbers of Chula RBC-12 for the six types that can be rendered.
LABELS = {
    "oval_disc": 0,
    "elongated_sickle": 12,
    "reticulocyte": 1,
    "granular": 3,
    "echinocyte": 8,
    "stomatocyte": 5,
}
NAMES = {
    "oval_disc": "normal",
    "elongated_sickle": "elliptocyte",
    "reticulocyte": "macrocyte",
    "granular": "spherocyte",
    "echinocyte": "burr_cell",
    "stomatocyte": "stomatocyte",
}


def write_chula(
    folder: Path, *, groups: int, fields_per_group: int, cells: int = 14
) -> dict[str, SyntheticField]:
    """Writes images/, labels/ and smears.csv; every cell is labelled. Returns the truth by image
    name.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    truth = {}
    rows = ["image,smear_group,labelled"]
    for number in range(groups * fields_per_group):
        group = number // fields_per_group
        field = render_field(
            seed=number,
            look_seed=group,
            width=320,
            height=240,
            cells=cells,
            cell_px=26.0,
            touching=0.2,
        )
        name = f"{number}.jpg"
        Image.fromarray(field.pixels).save(folder / "images" / name, quality=95)
        centres = (field.cell_boxes[:, :2] + field.cell_boxes[:, 2:]) / 2
        lines = [
            f"{int(x)} {int(y)} {LABELS[TYPES[kind]]}"
            for (x, y), kind in zip(centres, field.cell_types, strict=True)
        ]
        (folder / "labels" / f"{number}.txt").write_text("\n".join(lines) + "\n")
        rows.append(f"{name},{group},1")
        truth[name] = field
    (folder / "smears.csv").write_text("\n".join(rows) + "\n")
    return truth
