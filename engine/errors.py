"""Define the errors that a caller can distinguish. Every message names the argument or file, the
rule, the value and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
    "arguments_named",
    "options_named",
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


_OPTIONS: ContextVar[bool] = ContextVar("options", default=False)


@contextmanager
def options_named() -> Iterator[None]:
    """Let errors of the block name options of the command line, as they are written."""
    token = _OPTIONS.set(True)
    try:
        yield
    finally:
        _OPTIONS.reset(token)


@contextmanager
def arguments_named() -> Iterator[None]:
    """Let errors of the block that name options of the command line name arguments instead, for
    programs in Python. Does nothing in a block of options_named.
    """
    try:
        yield
    except RbcError as error:
        text = str(error) if _OPTIONS.get() else _in_arguments(str(error))
        if text == str(error):
            raise
        raise type(error)(text) from error


def _in_arguments(text: str) -> str:
    """Rename options in a text; text between backticks is a command, and does not change."""
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        part = re.sub(r"--(resume|overwrite)\b", r"\1=True", parts[index])
        part = re.sub(
            r"--(?!extra-index-url)([a-z][a-z-]*)", lambda match: match[1].replace("-", "_"), part
        )
        parts[index] = re.sub(r"\bINPUT\b", "inputs", part).replace("same command", "same call")
    return "`".join(parts)
