"""Read the regions that an earlier `rbc-engine run` wrote, as if they had just been found."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rbc_engine.errors import ResultsError, UsageError
from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.run_json import RUN_JSON, RunRecord
from rbc_engine.sinks.tables.fields_csv import FieldsCsv
from rbc_engine.sinks.tables.regions_table import kind_numbers
from rbc_engine.text import plain_text
from rbc_engine.training.datasets.base import LabelledField
from rbc_engine.training.evaluation.findings import Findings
from rbc_engine.types.regions import RegionFlag, Regions

__all__ = ["EarlierRun", "read_earlier_run"]


@dataclass(frozen=True, eq=False, kw_only=True)
class EarlierRun:
    """Hold findings of the fields asked for, with device, backend and precision as in run.json."""

    findings: Findings
    device: str
    backend: str
    precision: str


def read_earlier_run(
    regions_parquet: Path, *, pack: Pack, fields: Sequence[LabelledField]
) -> EarlierRun:
    """Take the fields from a run's regions.parquet, with its fields.csv and run.json.

    A field is found by its name in the run, its path relative to the run's INPUT: the folder that
    holds all fields, or one above it.

    Raises UsageError if the files are damaged, of another pack, or lack a field.
    """
    run, rows, table = _read_files(regions_parquet)
    sha256 = (table.schema.metadata or {}).get(b"rbc_engine.pack.sha256", b"").decode()
    if sha256 != pack.sha256:
        raise UsageError(
            f"--regions {regions_parquet} was made with another pack than {pack.name} "
            f"{pack.manifest.version} (sha256 {sha256[:12] or 'unknown'}, not {pack.sha256[:12]}); "
            "run it again with this pack"
        )
    by_name = _rows_by_name(regions_parquet, rows)
    names = _names_in_run(regions_parquet, fields, by_name)
    failed = [name for name in names if by_name[name]["status"] != "done"]
    if failed:
        raise UsageError(
            f"--regions {regions_parquet}: {len(failed)} of the fields failed in that run "
            f"({', '.join(failed[:3])}); repair the images and run it again"
        )
    found = _regions_by_name(table, pack)
    none = _regions(table.slice(0, 0), pack)
    return EarlierRun(
        findings=Findings.matched(
            fields,
            [found.get(name, none) for name in names],
            saturated=sum(by_name[name]["saturated"] == "true" for name in names),
        ),
        device=str(run.device),
        backend=str(run.backend),
        precision=str(run.precision),
    )


def _read_files(regions_parquet: Path) -> tuple[RunRecord, list[dict[str, str]], Any]:
    folder = regions_parquet.parent
    try:
        run = RunRecord.read(folder / RUN_JSON)
        with (folder / FieldsCsv.NAME).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        # Through memory, so that a fault is reported as one of this file.
        table = pq.read_table(pa.BufferReader(regions_parquet.read_bytes()))
    except ResultsError as error:
        raise UsageError(f"--regions {regions_parquet}: {error}") from error
    except OSError as error:
        raise UsageError(
            f"--regions {regions_parquet}: cannot read {error.filename or 'it'}: "
            f"{error.strerror or error}; give regions.parquet in the folder that `rbc-engine run` "
            "wrote, with all its files"
        ) from error
    except (ValueError, csv.Error, pa.ArrowException) as error:
        raise UsageError(
            f"--regions {regions_parquet}: the run's files are damaged ({error}); run it again"
        ) from error
    return run, rows, table


def _rows_by_name(regions_parquet: Path, rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    by_name: dict[str, dict[str, str]] = {}
    for row in rows:
        # csv_text puts an apostrophe before what a spreadsheet would run.
        name = plain_text(row["field"])
        if name in by_name:
            raise UsageError(
                f"--regions {regions_parquet}: two slides of that run have a field {name!r}; "
                f"run the folder that holds them all as one INPUT"
            )
        by_name[name] = row
    return by_name


def _names_in_run(
    regions_parquet: Path, fields: Sequence[LabelledField], known: dict[str, dict[str, str]]
) -> list[str]:
    """Return the name of each field in the run: its path relative to the first common folder, going
    up, that fits.
    """
    paths = [field.path.parent.resolve() / field.path.name for field in fields]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    for folder in (common, *common.parents):
        names = [path.relative_to(folder).as_posix() for path in paths]
        if all(name in known for name in names):
            return names
    names = [path.relative_to(common).as_posix() for path in paths]
    missing = [name for name in names if name not in known]
    raise UsageError(
        f"--regions {regions_parquet}: that run has no {len(missing)} of the {len(names)} fields "
        f"to be scored ({', '.join(missing[:3])}); run the folder {common} as INPUT"
    )


def _regions_by_name(table: Any, pack: Pack) -> dict[str, Regions]:
    """Return the regions of each field, whose rows follow one another."""
    if not len(table):
        return {}
    names = np.array(table["field"].to_pylist(), object)
    begins = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    ends = np.append(begins[1:], len(names))
    return {
        names[begin]: _regions(table.slice(begin, end - begin), pack)
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    }


def _regions(rows: Any, pack: Pack) -> Regions:
    def columns(names: Sequence[str], dtype: type) -> np.ndarray[Any, Any]:
        return np.stack([rows[name].to_numpy() for name in names], axis=-1).astype(dtype)

    flags = [
        sum(RegionFlag[name.upper()] for name in text.split(";") if name)
        for text in rows["flags"].to_pylist()
    ]
    return Regions.by_area(
        boxes=columns(("x0", "y0", "x1", "y1"), np.float32),
        scores=columns(("score",), np.float32)[:, 0],
        kinds=kind_numbers(rows["kind"]),
        probabilities=columns([f"p_{name}" for name in pack.types], np.float32),
        has=columns([f"has_{name}" for name in pack.types], np.bool_),
        abnormal_p=columns(("abnormal_p",), np.float32)[:, 0],
        abnormal=columns(("abnormal",), np.bool_)[:, 0],
        flags=np.array(flags, np.uint8),
    )
