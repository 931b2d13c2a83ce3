"""Whether a folder may take the results of a run: quick to ask, before networks are compiled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rbc_engine.errors import OutputError, UsageError
from rbc_engine.sinks.files.atomic import explain_os_errors
from rbc_engine.sinks.journal.live_journal import LIVE_JOURNAL
from rbc_engine.sinks.journal.run_journal import RUN_JOURNAL
from rbc_engine.sinks.own_files import OWN_FILES, RUN_JSON, is_run_json, own_files
from rbc_engine.text import encodable

__all__ = ["RUN_JSON", "refuse_filled", "refuse_foreign", "refuse_inputs"]

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


def refuse_filled(folder: Path) -> None:
    """Raises OutputError, which says what to do, if the folder holds anything or is none. It need not exist."""
    with explain_os_errors(folder):
        held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if not held:
        return
    shown = encodable(str(folder))
    for name, what in (
        (RUN_JOURNAL, "a run that was cut short"),
        (RUN_JSON, "the results of a run"),
    ):
        if name in held and holds_run(folder):
            raise OutputError(
                f"--out {shown} holds {what} ({name}); pass --resume to go on with it, --overwrite to replace "
                f"it, or name another --out"
            )
    if holds_run(folder) or all(name == OWN_FILES or _TEMPORARY.fullmatch(name) for name in held):
        raise OutputError(
            f"--out {shown} holds what a run left that was cut short ({encodable(held[0])}); pass --overwrite to "
            f"replace it, or name another --out"
        )
    refuse_foreign(folder)
    raise OutputError(f"--out {shown} is not empty ({encodable(held[0])}); name another --out")


def refuse_foreign(folder: Path) -> None:
    """Raises OutputError if the folder holds files, and no run that could be replaced. It need not exist."""
    with explain_os_errors(folder):
        if not folder.exists():
            return
        visible = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if visible and not holds_run(folder):
        raise OutputError(
            f"--out {encodable(str(folder))} is not empty, and holds no run (it holds {encodable(visible[0])}); "
            f"name another --out"
        )


def refuse_inputs(folder: Path, inputs: Sequence[Path], *, name: str = "INPUT") -> None:
    """Raises UsageError if the folder is one of the inputs or contains one, links resolved.

    name: what the inputs are called on the command line.
    """
    out = folder.resolve()
    for given in inputs:
        found = given.resolve()
        if out == found or out in found.parents:
            what = "is" if out == found else "contains"
            raise UsageError(
                f"--out {encodable(str(folder))} {what} {name} {encodable(str(given))}: results must not lie among "
                f"what they are made from; name another folder"
            )


def holds_run(folder: Path) -> bool:
    """Whether there is a run, whole or cut short."""
    return (
        is_run_json(folder / RUN_JSON)
        or any((folder / name).is_file() for name in (RUN_JOURNAL, LIVE_JOURNAL))
        or any((folder / name).is_file() for name in own_files(folder))
    )
