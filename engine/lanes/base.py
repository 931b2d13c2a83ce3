"""What the engine needs of a lane: anything that analyses batches of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rbc_engine.types.frames import Decoded
from rbc_engine.types.results import FieldResult

__all__ = ["Analyze", "AnyLane"]


class Analyze(Protocol):
    """Results of a batch of frames, in its order; see Lane.analyze."""

    def __call__(
        self, batch: Sequence[Decoded], *, keep_frames: bool = False
    ) -> list[FieldResult]: ...


class AnyLane(Protocol):
    """One batch in flight, used by one thread at a time. Lane runs networks; a stub need not."""

    def prepare(self) -> None:
        """Does what does not depend on the frames, before the first of them comes."""

    def analyze(self, batch: Sequence[Decoded], *, keep_frames: bool = False) -> list[FieldResult]:
        """Gives the results of a batch, in its order. Raises DeviceError if the device fails."""

    def close(self) -> None:
        """Frees what the lane holds."""
