"""Write the files of a table or figure in --out and --work: every file appears whole or not at
all.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel

from rbc_engine.errors import UsageError
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.training.evaluation.report.tables import Table

__all__ = ["load_arrays", "save_arrays", "to_png", "write_result"]

Arrays = Mapping[str, npt.NDArray[Any]]


def write_result(
    folder: Path,
    name: str,
    *,
    values: BaseModel,
    title: str,
    lines: Sequence[str],
    tables: Sequence[Table],
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Write NAME.json, NAME.md and pictures; those of an earlier run with the same names are
    replaced.

    title, lines: heading and paragraphs of the Markdown, before the tables.
    pictures: PNG files by name, shown at its end.

    Raises OutputError if writing fails. Everything is on disk before the first file is moved.
    """
    pictures = pictures or {}
    text = [f"# {title}"]
    text += [f"\n{line}" for line in lines]
    text += [_to_markdown(table) for table in tables]
    text += [f"\n![{title}]({picture})" for picture in pictures]
    contents = {
        **pictures,
        f"{name}.md": ("\n".join(text) + "\n").encode(),
        f"{name}.json": f"{values.model_dump_json(indent=2, by_alias=True)}\n".encode(),
    }
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _write_all({folder / file: data for file, data in contents.items()})


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write an .npz, and the folders in which it lies. Raises OutputError if writing fails."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write_all({path: buffer.getvalue()})


def load_arrays(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Read the named arrays of an .npz written by save_arrays. Raises UsageError if it is
    damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} cannot be read ({error!r:.200}); remove it and repeat the command to compute "
            "it again"
        ) from error


def to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def _write_all(contents: Mapping[Path, bytes]) -> None:
    files: list[AtomicFile] = []
    try:
        for path, data in contents.items():
            files.append(AtomicFile(path))
            files[-1].write(data)
            files[-1].complete()
        for file in files:
            file.finish()
    finally:
        for file in files:
            file.discard()


def _to_markdown(table: Table) -> str:
    rows = [table.headings, ("---", *["---:"] * (len(table.headings) - 1)), *table.rows]
    lines = [f"| {' | '.join(_escape(cell) for cell in row)} |" for row in rows]
    return "\n".join(["", f"## {table.title}", "", *lines])


def _escape(text: str) -> str:
    """Return outside text on one line, with Markdown's own characters escaped."""
    flat = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*[]<>|" else letter for letter in flat)
