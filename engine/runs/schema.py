"""Which run folders this program reads, and what it says of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SCHEMA", "other_schema"]

SCHEMA = 2
"""Version of run.json and of the tables beside it. Since 2 every region has a kind, and cells.parquet its cells."""


def other_schema(run: Mapping[str, Any]) -> str:
    """Says of a run.json of another schema why it is refused, and what to do: to follow the name of its file."""
    schema = run.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        return f"has schema {schema!r:.40}, and this program reads {SCHEMA}: it is no run.json of a run"
    program = run.get("program")
    version = program.get("version") if isinstance(program, dict) else None
    wrote = f" (rbc-engine {version!s:.40} wrote it)" if version else ""
    if schema < SCHEMA:
        return (
            f"has schema {schema}{wrote}, which knows neither kinds nor cells, and this program reads {SCHEMA}: run the "
            f"images again with `rbc-engine run --overwrite`, or read it with the version that wrote it"
        )
    return (
        f"has schema {schema}{wrote}, and this program reads {SCHEMA}: it comes from a newer version; upgrade with "
        f"pip install -U rbc-engine"
    )
