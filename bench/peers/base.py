"""What a peer is."""

from __future__ import annotations

from typing import Protocol

from rbc_engine.errors import RbcError
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.results import Regions

__all__ = ["Peer", "PeerMissingError"]


class PeerMissingError(RbcError):
    """Say why a peer cannot be measured here."""


class Peer(Protocol):
    """Run a pipeline that is open, with its networks loaded.

    name: one of rbc_engine.bench.settings.PEERS. precision: in which its networks compute.
    description: what it is, for the report.
    """

    name: str
    precision: str
    description: str

    def analyze(self, ref: FieldRef) -> Regions:
        """Return the regions of one image file, read from disk, as the engine gives them."""
        ...

    def close(self) -> None: ...
