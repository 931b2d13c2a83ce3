"""Do a whole run, as `rbc-engine run` does once its engine is open: into a folder, journal and
tables included.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rbc_engine.engine import Engine
from rbc_engine.errors import RbcError
from rbc_engine.runs.record import run_head
from rbc_engine.runs.resume import fresh_plan
from rbc_engine.runs.run import run_fields
from rbc_engine.sinks.journal.run_journal import RunJournal
from rbc_engine.sinks.output import RunOutput
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
    """Run fields into a folder; raise RbcError if a field failed."""
    began = time.perf_counter()

    def check(result: FieldResult, kept: bool) -> None:
        if result.error is not None:
            raise RbcError(f"{result.field} failed during the bench: {result.error}")
        on_result(result)

    with (
        RunOutput(folder, engine.pack, overwrite=True) as output,
        RunJournal.create(
            folder, run_head(engine, settings={}), types=len(engine.pack.types)
        ) as journal,
    ):
        run_fields(
            engine,
            fresh_plan(entries),
            output,
            journal,
            started=began,
            settings={},
            stop=threading.Event(),
            on_result=check,
        )
