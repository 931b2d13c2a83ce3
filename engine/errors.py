"""What can go wrong, in kinds that a caller can tell apart. Every message names the argument or file,
the rule, the value and the remedy."""

from __future__ import annotations

__all__ = [
    "DeviceError",
    "DeviceMemoryError",
    "ImageError",
    "OutputError",
    "PackError",
    "RbcError",
    "ResultsError",
    "SessionClosedError",
    "UsageError",
]


class RbcError(Exception):
    """Any error that rbc-engine raises on purpose."""


class UsageError(RbcError, ValueError):
    """An argument or option breaks its rule."""


class ImageError(RbcError):
    """One image cannot be used. A run records it in its field's row and goes on."""


class PackError(RbcError):
    """A model pack is damaged, unsafe, or from a newer version."""


class DeviceError(RbcError):
    """A device, or the library that drives it, is missing or failed."""


class DeviceMemoryError(DeviceError):
    """A device has too little memory left. With fewer lanes it may do."""


class OutputError(RbcError):
    """Results cannot be written."""


class ResultsError(RbcError):
    """The folder of an earlier run cannot be used: damaged, changed since, or made otherwise than now asked for."""


class SessionClosedError(RbcError):
    """A frame was submitted to a session that takes no more."""
