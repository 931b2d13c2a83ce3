"""Read a dataset's own files, which may come from anybody: bounded, and never outside its
folder.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from rbc_engine.errors import UsageError
from rbc_engine.sources.images.table import IMAGE_SUFFIXES
from rbc_engine.training.datasets.check import Faults

__all__ = [
    "brief",
    "find_folders",
    "images_by_stem",
    "list_pictures",
    "path_inside",
    "read_bytes",
    "read_smears",
    "read_table",
    "smear_groups",
]

_MAX_TABLE_BYTES = 64 * 2**20


def find_folders(folder: Path, *names: Sequence[str]) -> list[Path]:
    """Find, for each list of names, the first existing subfolder. Raises UsageError if there is
    none for some.
    """
    found, missing = [], []
    for choices in names:
        path = next((folder / name for name in choices if (folder / name).is_dir()), None)
        if path is None:
            missing.append(" or ".join(f"{name}/" for name in choices))
        else:
            found.append(path)
    if missing:
        raise UsageError(
            f"--data {folder} lacks {' and '.join(missing)}; give the folder that holds them, or "
            "another --format"
        )
    return found


def images_by_stem(folder: Path, faults: Faults) -> dict[str, Path]:
    """Return the images of a folder by their names without suffix; two with one stem are a
    fault.
    """
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in images:
                faults.add(
                    f"{folder.name}/{path.name} and {images[path.stem].name} have the same stem, "
                    f"by which labels are found; rename or remove one"
                )
            images.setdefault(path.stem, path)
    return images


def list_pictures(folder: Path) -> list[Path]:
    """Return the images in a folder and its subfolders, sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def path_inside(folder: Path, name: str) -> Path | None:
    """Return the path of a name in an untrusted file; None if it would leave the folder."""
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts) or set(name) & {"\\", "\0"}:
        return None
    return folder / name


def read_bytes(path: Path, *, name: str, max_bytes: int, faults: Faults) -> bytes | None:
    """Read a file; None, and a fault, if it cannot be read or is larger than any such file should
    be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        faults.add(f"{name}: cannot be read: {error.strerror or error}; check that it exists")
        return None
    if len(data) > max_bytes:
        faults.add(f"{name}: larger than the allowed {max_bytes} bytes; split the dataset")
        return None
    return data


def read_table(
    path: Path, *, columns: Sequence[str], faults: Faults
) -> list[dict[str, str]] | None:
    """Read the rows of a CSV file (UTF-8, with a header); None, and a fault, if it lacks one of the
    columns.

    A missing cell is "".
    """
    data = read_bytes(path, name=path.name, max_bytes=_MAX_TABLE_BYTES, faults=faults)
    if data is None:
        return None
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), restval="")
        rows = [{key: value for key, value in row.items() if key is not None} for row in reader]
        header = reader.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        faults.add(f"{path.name}: not a table of comma-separated UTF-8 ({error}); export it again")
        return None
    if not set(columns) <= set(header):
        faults.add(
            f"{path.name} must have the columns {' and '.join(columns)} (got {sorted(header)})"
        )
        return None
    return rows


def read_smears(
    folder: Path, images: Sequence[str], faults: Faults
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the smear group of every image, and notes on it.

    DIR/smears.csv has the columns image and smear_group. Without it, every image is a group of its
    own.
    """
    table = folder / "smears.csv"
    if not table.exists():
        note = (
            "there is no smears.csv, so every image counts as a smear of its own; if several show "
            "one smear, list image and smear_group there, or a split will test on smears that it "
            "trained on"
        )
        return {image: image for image in images}, (note,)
    groups = smear_groups(table, faults)
    if groups is not None:
        known = set(images)
        for image in groups:
            if image not in known:
                faults.add(f"{table.name} names the image {image}, which has no labels here")
        for image in images:
            if image not in groups:
                faults.add(f"{table.name} has no row for the image {image}; add it")
    return groups or {}, ()


def smear_groups(table: Path, faults: Faults) -> dict[str, str] | None:
    """Return the smear group by image, in the order of the rows; None, and a fault, if the table
    cannot be read.
    """
    rows = read_table(table, columns=("image", "smear_group"), faults=faults)
    if rows is None:
        return None
    groups: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        image, group = row["image"], row["smear_group"]
        if not image or not group:
            faults.add(f"{table.name}, line {number}: image and smear_group must not be empty")
        elif groups.setdefault(image, group) != group:
            faults.add(
                f"{table.name}, line {number}: {image} is in group {groups[image]} and in {group}; "
                "keep one"
            )
    return groups


def brief(names: Iterable[str], *, most: int = 3) -> str:
    """Return the first few names."""
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
