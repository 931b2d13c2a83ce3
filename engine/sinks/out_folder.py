"""Decide about the folder for results: what may be put there, and what is removed for it.

Every command begins with `claim`: quickly, before networks are compiled. Its result is
passed to everything that writes there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rbc_engine.errors import OutputError, ResultsError, UsageError
from rbc_engine.sinks.files.atomic import explain_os_errors, remove_abandoned
from rbc_engine.sinks.files.records import lock_for_reading
from rbc_engine.sinks.own_files import (
    LIVE_JOURNAL,
    OWN_FILES,
    RUN_JOURNAL,
    is_run_json,
    own_files,
    refuse_in_the_way,
)
from rbc_engine.sinks.run_json import RUN_JSON
from rbc_engine.text import encodable

__all__ = ["RESULT_FILES", "RUN", "Contents", "Mode", "OutFolder", "claim"]

Mode = Literal["new", "overwrite", "resume"]
"""Treatment of results already in the folder: refused, replaced, or completed."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Describe the kind of results that a folder is for.

    name: in messages. is_held: whether they are in a folder, whole or cut short. own_files: those
    files of a folder that belong to them, relative to it.
    """

    name: str
    is_held: Callable[[Path], bool]
    own_files: Callable[[Path], frozenset[str]]


def _holds_run(folder: Path) -> bool:
    return (
        is_run_json(folder / RUN_JSON)
        or any((folder / name).is_file() for name in (RUN_JOURNAL, LIVE_JOURNAL))
        or any((folder / name).is_file() for name in own_files(folder))
    )


RUN = Contents(name="run", is_held=_holds_run, own_files=own_files)
"""The files of a run, complete or interrupted."""

RESULT_FILES = (RUN_JSON, RUN_JOURNAL, LIVE_JOURNAL, OWN_FILES)
"""A folder without any of these holds no run."""


class OutFolder:
    """Hold a claimed folder, see `claim`. It need not exist yet.

    path: where it is. mode: as claimed.
    """

    def __init__(self, path: Path, mode: Mode, contents: Contents, *, resumes: bool = True) -> None:
        """Take a folder without checks; `claim` makes them."""
        self.path = path
        self.mode = mode
        self._contents = contents
        self._resumes = resumes

    def check(self) -> None:
        """Refuse the folder for its content.

        Raises OutputError if results must not be put there, ResultsError if its content is to be
        resumed but not from a run. Each says what to do instead.
        """
        if self.mode == "new":
            self._refuse_filled()
        elif self.mode == "resume":
            self._refuse_unresumable()
        else:
            self._refuse_foreign()

    def refuse_running(self) -> None:
        """Raise OutputError if a run is writing its journal there at this moment."""
        for name in (RUN_JOURNAL, LIVE_JOURNAL):
            path = self.path / name
            with suppress(FileNotFoundError, NotADirectoryError), path.open("rb") as file:
                lock_for_reading(path, file)

    def prepare(self, files: Sequence[str], *, abandoned: Sequence[str]) -> None:
        """Make the folder, and remove from it what killed runs left under hidden names.

        files: that will be put there; in their place there must be only the folder's own.
        abandoned: the files and folders whose leftovers are removed.

        Raises OutputError if `check` would, if a file is in the way, or if writing fails.
        """
        with explain_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if self.mode == "new":
                self._refuse_filled()
                return
            self._refuse_foreign()
            for name in files:
                if (self.path / name).is_dir():
                    raise OutputError(
                        f"{name} in {self._shown} is a folder; move it, or name another --out"
                    )
            refuse_in_the_way(self.path, files, self._contents.own_files(self.path))
            for name in abandoned:
                remove_abandoned(self.path / name)

    @property
    def _shown(self) -> str:
        return f"--out {encodable(str(self.path))}"

    def _held(self) -> list[str]:
        with explain_os_errors(self.path):
            if not self.path.exists():
                return []
            return sorted(path.name for path in self.path.iterdir())

    def _refuse_filled(self) -> None:
        held = self._held()
        if not held:
            return
        if self._contents is not RUN:
            self._refuse_foreign()
            raise OutputError(
                f"{self._shown} holds a {self._contents.name} ({encodable(held[-1])}); pass "
                f"--overwrite to replace it, or name another --out"
            )
        holds_run = _holds_run(self.path)
        if LIVE_JOURNAL in held and holds_run:
            raise OutputError(
                f"{self._shown} holds the {LIVE_JOURNAL} of a run that was cut short; `rbc-engine "
                f"live --recover {encodable(str(self.path))}` completes it, --overwrite replaces it"
            )
        for name, what in (
            (RUN_JOURNAL, "a run that was cut short"),
            (RUN_JSON, "the results of a run"),
        ):
            if name in held and holds_run:
                remedy = "pass --overwrite to replace it, or name another --out"
                if self._resumes:
                    remedy = f"pass --resume to continue it, {remedy.removeprefix('pass ')}"
                elif name == RUN_JOURNAL:
                    remedy = f"`rbc-engine run --resume` continues it; {remedy}"
                raise OutputError(f"{self._shown} holds {what} ({name}); {remedy}")
        if holds_run or all(name == OWN_FILES or _TEMPORARY.fullmatch(name) for name in held):
            raise OutputError(
                f"{self._shown} holds files of an interrupted run ({encodable(held[0])}); pass "
                f"--overwrite to replace it, or name another --out"
            )
        self._refuse_foreign()
        raise OutputError(f"{self._shown} is not empty ({encodable(held[0])}); name another --out")

    def _refuse_foreign(self) -> None:
        visible = [name for name in self._held() if not name.startswith(".")]
        if visible and not self._contents.is_held(self.path):
            raise OutputError(
                f"{self._shown} is not empty, and holds no {self._contents.name} (it holds "
                f"{encodable(visible[0])}); name another --out"
            )

    def _refuse_unresumable(self) -> None:
        held = self._held()
        if RUN_JOURNAL in held:
            return
        if LIVE_JOURNAL in held:
            shown = encodable(str(self.path))
            raise ResultsError(
                f"{self._shown} holds the {LIVE_JOURNAL} of a live run that was cut short; "
                f"`rbc-engine live --recover {shown}` completes it"
            )
        visible = [name for name in held if not name.startswith(".")]
        if visible and RUN_JSON not in held:
            raise OutputError(
                f"{self._shown} is not empty, but holds neither {RUN_JOURNAL} nor {RUN_JSON} to "
                f"resume from (it holds {encodable(visible[0])}); name another --out"
            )


def claim(
    folder: Path,
    mode: Mode = "new",
    *,
    inputs: Mapping[str, Sequence[Path]] | None = None,
    contents: Contents = RUN,
    resumes: bool = True,
) -> OutFolder:
    """Claim a folder for results, or refuse it if they must not be put there. Changes nothing.

    inputs: the sources of the results, by their names on the command line. contents:
    the kind of results. resumes: whether the command that claims it has --resume.

    Raises UsageError if the folder is one of the inputs or contains one, links resolved;
    OutputError for its content, or if a run is writing there; ResultsError if it is to be
    resumed but cannot be.
    """
    out = OutFolder(folder, mode, contents, resumes=resumes)
    for name, paths in (inputs or {}).items():
        for given in paths:
            _refuse_input(folder, given, name=name)
    if mode != "new":
        out.refuse_running()
    out.check()
    return out


def _refuse_input(folder: Path, given: Path, *, name: str) -> None:
    out, found = folder.resolve(), given.resolve()
    if out == found or out in found.parents:
        what = "is" if out == found else "contains"
        raise UsageError(
            f"--out {encodable(str(folder))} {what} {name} {encodable(str(given))}: results must "
            f"not be among the files they are made from; name another folder"
        )
