"""The kinds of devices. A new one is a folder beside cpu/ and cuda/, and a line here."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType

from rbc_engine.devices.cpu.kind import CPU
from rbc_engine.devices.cuda.kind import CUDA
from rbc_engine.types.frames import DevicePixels, Place

__all__ = ["KINDS", "adopt", "place_of"]

KINDS = MappingProxyType({kind.name: kind for kind in (CUDA, CPU)})
"""By name, the fastest first: 'auto' takes the first without problems. The last never has any."""


def place_of(dlpack_type: int, number: int) -> Place | None:
    """Name a device's memory, given as DLPack does; None if no kind here has such memory."""
    for kind in KINDS.values():
        if kind.dlpack_type == dlpack_type:
            return Place(kind.name, number)
    return None


def adopt(frame: object, place: Place, *, among: Collection[Place]) -> DevicePixels | None:
    """Take a frame as it lies in a device's memory.

    None if that is not among the places that can be read.
    """
    take = KINDS[place.kind].adopt
    return take(frame) if place in among and take is not None else None
