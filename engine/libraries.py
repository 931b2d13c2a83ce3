"""Libraries that may be missing: which are here, in which version, and how to get the others."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

__all__ = ["Library"]


@dataclass(frozen=True, kw_only=True)
class Library:
    """Describe one library that something needs.

    name: as people call it. module: what is imported. remedy: how to get it.
    distributions: the packages that bring it; any of them will do.
    """

    name: str
    module: str
    distributions: tuple[str, ...]
    remedy: str

    def version(self) -> str | None:
        """Find its version without importing it; None if it is not installed."""
        try:
            if find_spec(self.module) is None:
                return None
        except ModuleNotFoundError:  # of the package above it
            return None
        for name in self.distributions:
            try:
                return version(name)
            except PackageNotFoundError:
                continue
        return "of unknown version"

    def missing(self) -> str | None:
        """Say that it is missing, and the remedy; None if it is here."""
        return None if self.version() else f"{self.name} is not installed; {self.remedy}"

    def __str__(self) -> str:
        return self.missing() or f"{self.name} {self.version()}"
