"""Do a whole run, as `rbc-engine run` does once its engine is open: into a folder, journal and
tables included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rbc_engine.engine import Engine
from rbc_engine.errors import RbcError
from rbc_engine.runs.run import run_entries
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sources.base import Entry
from rbc_engine.types.results import FieldResult

__all__ = ["run_into"]


def run_into(
    folder: Path,
    engine: Engine,
    entries: Sequence[Entry],
    *,
    on_result: Callable[[FieldResult], None] = lambda result: None,
) -> None:
    """Raises RbcError if a field failed."""

    def check(result: FieldResult, kept: bool) -> None:
        if result.error is not None:
            raise RbcError(f"{result.field} failed during the bench: {result.error}")
        on_result(result)

    run_entries(engine, entries, claim(folder, "overwrite"), on_result=check)
