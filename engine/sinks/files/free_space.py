"""Look whether results will fit on the disk, before hours are spent on them."""

from __future__ import annotations

import shutil
from pathlib import Path

from rbc_engine.errors import OutputError
from rbc_engine.sinks.files.atomic import explain_os_errors
from rbc_engine.text import encodable

__all__ = ["check_free_space"]

_LEAST_BYTES = 16 << 20
_FIELD_BYTES = 32 << 10
"""Of a field with a few hundred cells, in the journal and in the tables."""


def check_free_space(folder: Path, *, fields: int) -> None:
    """Raise OutputError if the disk of a folder, which need not exist yet, has too little room for
    the results of so many fields.
    """
    existing = next(part for part in (folder, *folder.absolute().parents) if part.is_dir())
    with explain_os_errors(folder):
        free = shutil.disk_usage(existing).free
    needed = _LEAST_BYTES + fields * _FIELD_BYTES
    if free < needed:
        raise OutputError(
            f"the disk of --out {encodable(str(folder))} has {free >> 20} MiB left, and the results of "
            f"{fields} fields take about {needed >> 20} MiB; make room, or name a folder on another disk"
        )
