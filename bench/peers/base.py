"""What a peer is."""

from __future__ import annotations

from typing import Protocol

from rbc_engine.errors import RbcError
from rbc_engine.types.frames import FieldRef
from rbc_engine.types.results import Regions

__all__ = ["Peer", "PeerMissingError"]


class PeerMissingError(RbcError):
    """A peer cannot be measured here; the message says why."""


class Peer(Protocol):
    """A pipeline that is open, with its networks loaded.

    name: of rbc_engine.bench.settings.PEERS. precision: that its networks compute in.
    description: what it is, for the report.
    """

    name: str
    precision: str
    description: str

    def analyze(self, ref: FieldRef) -> Regions:
        """The regions of one image file, read from the disk, as the engine gives them."""
        ...

    def close(self) -> None: ...
