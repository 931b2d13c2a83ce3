"""Let errors name arguments to programs in Python, and options on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rbc_engine.errors import RbcError

__all__ = ["arguments_named", "options_named"]

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
