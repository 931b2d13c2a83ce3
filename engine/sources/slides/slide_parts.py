"""Check the further files of a slide before a library opens them: pipes, devices, files elsewhere."""

from __future__ import annotations

import stat
from pathlib import Path

from rbc_engine.errors import ImageError
from rbc_engine.sources.bounds.regular_file import read_start
from rbc_engine.text import printable

__all__ = ["check_parts", "named_parts"]

_MAX_INDEX_BYTES = 1 << 20
_INDEXES = (".vms", ".vmu")
_MIRAX = ".mrxs"
_MOST_PARTS = 10_000


def named_parts(path: Path) -> list[str]:
    """Return what the lines of a .vms or .vmu say after their first '='; its files are among it.

    Raises ImageError and OSError as read_start does.
    """
    lines = read_start(path, _MAX_INDEX_BYTES).decode("utf-8", "replace").splitlines()
    return [text for line in lines if (text := line.partition("=")[2].strip())]


def check_parts(path: Path) -> None:
    """Check the files that belong to a slide of several: they must be regular ones, and lie with it.

    Raises ImageError; OSError if they cannot be looked at.
    """
    suffix = path.suffix.lower()
    if suffix in _INDEXES:
        for name in named_parts(path):
            if "/" in name or "\\" in name or name in ("", ".", ".."):
                raise ImageError(
                    f"it names a file elsewhere ({printable(name)!r:.80}); copy the slide with all its "
                    "files into one folder"
                )
            _check(path.parent / name)
    elif suffix == _MIRAX:
        folder = path.with_suffix("")
        if folder.is_dir():
            for number, part in enumerate(folder.iterdir()):
                if number >= _MOST_PARTS:
                    raise ImageError(f"its folder holds more than {_MOST_PARTS} files")
                _check(part)


def _check(part: Path) -> None:
    try:
        mode = part.stat().st_mode
    except (OSError, ValueError):  # a value that is no file; or missing, which its reader says
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ImageError(
            f"its part {printable(part.name)!r:.80} is not a regular file; copy it again"
        )
