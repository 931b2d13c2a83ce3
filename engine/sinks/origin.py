"""Name the origin of a file, for the formats that have room for it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from rbc_engine import _kernels
from rbc_engine.packs.pack import Pack

__all__ = ["origin"]


def origin(pack: Pack) -> dict[str, dict[str, Any]]:
    """Return `pack` and `program` of run.json."""
    return {
        "pack": {"name": pack.name, "version": pack.manifest.version, "sha256": pack.sha256},
        "program": {"version": version("rbc-engine"), "commit": _kernels.commit},
    }
