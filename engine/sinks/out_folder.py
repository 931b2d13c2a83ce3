"""Whether a folder is free for the results of a run: quick to ask, before networks are compiled."""

from __future__ import annotations

from pathlib import Path

from rbc_engine.errors import OutputError
from rbc_engine.sinks.atomic import explain_os_errors
from rbc_engine.sinks.run_journal import RUN_JOURNAL
from rbc_engine.sinks.text import encodable

__all__ = ["RUN_JSON", "refuse_filled"]

RUN_JSON = "run.json"


def refuse_filled(folder: Path) -> None:
    """Raises OutputError, which says what to do, if the folder holds anything or is none. It need not exist."""
    with explain_os_errors(folder):
        if not folder.exists() or not any(folder.iterdir()):
            return
    shown = encodable(str(folder))
    for name, what in (
        (RUN_JOURNAL, "a run that was cut short"),
        (RUN_JSON, "the results of a run"),
    ):
        if (folder / name).exists():
            raise OutputError(
                f"--out {shown} holds {what} ({name}); pass --resume to go on with it, --overwrite to replace "
                f"it, or name another --out"
            )
    raise OutputError(
        f"--out {shown} is not empty; pass --overwrite to replace the results in it, or name another --out"
    )
