"""Which files of a folder a run wrote, so that a later one removes these and no others.

A run lists them in .run.files, a path a line. A run of a version that did not has those that its run.json names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.sinks.formats.table import FORMATS
from rbc_engine.sinks.run_json import RUN_JSON, peek
from rbc_engine.text import encodable

__all__ = [
    "LIVE_JOURNAL",
    "OWN_FILES",
    "RUN_JOURNAL",
    "is_run_json",
    "own_files",
    "own_list",
    "refuse_in_the_way",
    "remove_own",
]

OWN_FILES = ".run.files"
RUN_JOURNAL = "run.journal"
LIVE_JOURNAL = "live.journal"

_TABLES = ("regions.parquet", "fields.csv", "slides.csv")


def own_files(folder: Path) -> frozenset[str]:
    """The files that the run in a folder wrote, if there is one, relative to the folder; some may be gone.

    A list may come from a stranger: names that no run writes are passed over.
    """
    try:
        text = (folder / OWN_FILES).read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return _of_run_json(folder)
    return frozenset(name for name in text.split("\n") if _can_be_own(name))


def is_run_json(path: Path) -> bool:
    """Whether a file is the run.json of a run, not one of another program."""
    return peek(path) is not None


def own_list(folder: Path, names: Iterable[str]) -> AtomicFile:
    """The list for a folder, complete under its hidden name."""
    file = AtomicFile(folder / OWN_FILES)
    try:
        text = "".join(f"{name}\n" for name in sorted(names))
        file.write(text.encode("utf-8", "surrogateescape"))
        file.complete()
    except BaseException:
        file.discard()
        raise
    return file


def refuse_in_the_way(folder: Path, names: Iterable[str], own: frozenset[str]) -> None:
    """Raises OutputError if a file is about to be replaced that the run in the folder did not write."""
    for name in names:
        path = folder / name
        if name not in own and (path.is_symlink() or path.is_file()):
            raise OutputError(
                f"{encodable(str(path))} is in the way: no run wrote it; move it, or name another --out"
            )


def remove_own(folder: Path, names: Iterable[str]) -> None:
    """Removes files, and each folder that is empty then. Links to folders are not followed."""
    linked: dict[Path, bool] = {folder: False}
    emptied: set[Path] = set()

    def behind_a_link(parent: Path) -> bool:
        if parent not in linked:
            linked[parent] = behind_a_link(parent.parent) or parent.is_symlink()
        return linked[parent]

    with explain_os_errors(folder):
        for name in names:
            path = folder / name
            if not behind_a_link(path.parent) and (path.is_symlink() or path.is_file()):
                path.unlink()
                emptied.update(part for part in path.parents if folder in part.parents)
        for parent in sorted(emptied, key=lambda part: len(part.parts), reverse=True):
            if not any(parent.iterdir()):
                parent.rmdir()


def _can_be_own(name: str) -> bool:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or path.as_posix() != name:
        return False
    if len(path.parts) == 1:
        singles = (chosen.output for chosen in FORMATS.values() if chosen.suffix is None)
        return name in (RUN_JSON, *_TABLES, *singles)
    return any(
        path.parts[0] == chosen.output
        and chosen.suffix is not None
        and name.endswith(chosen.suffix)
        for chosen in FORMATS.values()
    )


def _of_run_json(folder: Path) -> frozenset[str]:
    run = peek(folder / RUN_JSON)
    if run is None:
        return frozenset()
    settings = run.get("settings")
    formats = settings.get("formats") if isinstance(settings, dict) else None
    singles = [
        chosen.output
        for name, chosen in FORMATS.items()
        if chosen.suffix is None and isinstance(formats, list) and name in formats
    ]
    return frozenset([RUN_JSON, *singles, *(name for name in run["files"] if name in _TABLES)])
