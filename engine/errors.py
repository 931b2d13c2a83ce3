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
    """Signal an error; the base of all that rbc-engine raises on purpose."""


class UsageError(RbcError, ValueError):
    """Signal that an argument or option breaks its rule."""


class ImageError(RbcError):
    """Signal that one image cannot be used. A run records it in the field's row and continues."""


class PackError(RbcError):
    """Signal that a model pack is damaged, unsafe, or from a newer version."""


class DeviceError(RbcError):
    """Signal that a device, or the library that drives it, is missing or failed."""


class DeviceMemoryError(DeviceError):
    """Signal that a device has too little memory left. Fewer lanes may help."""


class OutputError(RbcError):
    """Signal that results cannot be written."""


class ResultsError(RbcError):
    """Signal that the folder of an earlier run cannot be used: damaged, changed since, or made with
    other settings.
    """


class SessionClosedError(RbcError):
    """Signal that a frame was submitted to a session that accepts no more."""
