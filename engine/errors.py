"""Define the errors that a caller can distinguish. Every message names the argument or file, the
rule, the value and the remedy."""

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
    """One image cannot be used. A run records it in the field's row and continues."""


class PackError(RbcError):
    """A model pack is damaged, unsafe, or from a newer version."""


class DeviceError(RbcError):
    """A device, or the library that drives it, is missing or failed."""


class DeviceMemoryError(DeviceError):
    """A device has too little memory left. Fewer lanes may help."""


class OutputError(RbcError):
    """Results cannot be written."""


class ResultsError(RbcError):
    """The folder of an earlier run cannot be used: damaged, changed since, or made with other
    settings.
    """


class SessionClosedError(RbcError):
    """A frame was submitted to a session that accepts no more."""
