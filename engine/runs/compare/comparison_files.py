"""Write the files of a comparison: compare.json, changes.csv with every changed region, and
compare.html.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rbc_engine.runs.compare.compare import LEAST_IOU, Change, Comparison, SlideDifference
from rbc_engine.runs.compare.comparison_page import comparison_page
from rbc_engine.runs.finished.finished_run import FinishedRun
from rbc_engine.sinks.files.atomic import AtomicFile
from rbc_engine.sinks.out_folder import Contents, OutFolder
from rbc_engine.sinks.tables.csv_file import CsvFile
from rbc_engine.stats.counts import SlideCounts
from rbc_engine.text import csv_text, encodable

__all__ = ["COMPARISON", "CompareOutput", "comparison_record"]

_FILES = _JSON, _CSV, _HTML = ("compare.json", "changes.csv", "compare.html")
_COLUMNS = (
    *("kind", "slide", "field", "region_a", "region_b", "x0", "y0", "x1", "y1", "iou"),
    *("types_a", "types_b", "abnormal_a", "abnormal_b", "abnormal_p_a", "abnormal_p_b"),
)


def _is_held(folder: Path) -> bool:
    try:
        record = json.loads((folder / _JSON).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"a", "b", "least_iou"} <= record.keys()


COMPARISON = Contents(
    name="comparison",
    is_held=_is_held,
    own_files=lambda folder: frozenset(_FILES if _is_held(folder) else ()),
)
"""The files of CompareOutput in a folder."""


class CompareOutput:
    """Write the three files, which appear together at the end. Use it in a `with` block, and call
    finish.

    Raises OutputError if writing fails.
    """

    def __init__(self, out: OutFolder) -> None:
        """Open the files. out: claimed for COMPARISON. Raises OutputError if it may not be written
        to by now.
        """
        out.prepare(_FILES, abandoned=_FILES)
        self._folder = out.path
        self._changes = CsvFile(out.path / _CSV, _COLUMNS)
        self._files: list[CsvFile | AtomicFile] = [self._changes]

    def write(self, change: Change) -> None:
        cells = (
            change.kind, change.slide, change.field, *change.region,
            *change.box, change.iou,
            *change.types, *change.abnormal, *change.abnormal_p,
        )  # fmt: skip
        self._changes.write_row([_cell(value) for value in cells])

    def finish(self, record: dict[str, Any]) -> None:
        """Write the files. record: of comparison_record."""
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            for name, content in ((_JSON, text), (_HTML, comparison_page(record))):
                file = AtomicFile(self._folder / name)
                self._files.append(file)
                file.write(content.encode("utf-8", "backslashreplace"))
            for each in self._files:
                each.complete()
            for each in self._files:
                each.finish()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what is half-written; do nothing after finish."""
        for file in self._files:
            file.discard()

    def __enter__(self) -> CompareOutput:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def comparison_record(a: FinishedRun, b: FinishedRun, found: Comparison) -> dict[str, Any]:
    """Return the content of compare.json."""
    notes = []
    if found.renamed:
        notes.append(
            f"{found.renamed} fields have another name in B, and were found by their images; they "
            "are listed under A's"
        )
    if found.other_images:
        notes.append(
            f"{found.other_images} fields have an image of another size in B: they may not show "
            "the same cells"
        )
    if found.types_only_a or found.types_only_b:
        notes.append(
            "types that only one run has are excluded when types are compared: "
            + ", ".join(
                [f"{name} (A)" for name in found.types_only_a]
                + [f"{name} (B)" for name in found.types_only_b]
            )
        )
    if found.ungraded:
        notes.append(
            f"grades are not compared: run.json of {' and '.join(found.ungraded)} does not state "
            f"which types are abnormal, as earlier versions did not; run it again for grades"
        )
    return {
        "schema": 1,
        "a": _run(a),
        "b": _run(b),
        "least_iou": LEAST_IOU,
        "fields": {
            "compared": found.fields,
            "renamed": found.renamed,
            "only_a": [_only(*row) for row in found.only_a],
            "only_b": [_only(*row) for row in found.only_b],
        },
        "regions": asdict(found.regions),
        "types": [asdict(row) for row in found.types],
        "slides": [_slide(row) for row in found.slides],
        "relabellings": [
            {"types_a": before, "types_b": after, "regions": count}
            for before, after, count in found.relabellings
        ],
        "relabellings_left_out": found.relabellings_left_out,
        "notes": notes,
    }


def _run(folder: FinishedRun) -> dict[str, Any]:
    run = folder.run.to_json()
    kept = ("pack", "program", "backend", "precision", "decoder", "settings", "counts")
    return {
        "folder": encodable(str(folder.folder)),
        "sha256": folder.sha256,
        **{key: run.get(key) for key in kept},
        "recalled_from": run.get("recalled_from"),
    }


def _only(slide: str, field: str, why: str) -> dict[str, str]:
    return {"slide": slide, "field": field, "why": why}


def _slide(row: SlideDifference) -> dict[str, Any]:
    return {
        "slide": row.slide,
        "fields": row.fields,
        "verdict": row.verdict,
        "regions": asdict(row.regions),
        "abnormal_a": _share(row.a),
        "abnormal_b": _share(row.b),
        "grades": [asdict(each) | {"changed": each.changed} for each in row.grades],
    }


def _share(counts: SlideCounts) -> dict[str, Any]:
    return {
        "abnormal": counts.whole_abnormal,
        "regions": counts.whole,
        "border": counts.border,
        "fraction": counts.abnormal_fraction,
        "ci_low": counts.ci_low,
        "ci_high": counts.ci_high,
    }


def _cell(value: str | int | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return csv_text(str(value))
