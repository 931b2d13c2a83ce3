"""Make text from outside (file names, messages that quote them) safe for files and their
readers.
"""

from __future__ import annotations

import re

__all__ = ["csv_text", "encodable", "plain_text", "printable"]

_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are full-width ones, which spreadsheets in some languages treat alike."""

_STARTS = "".join(_FORMULA_STARTS).replace("-", r"\-")
_LATER_FORMULA = re.compile(rf"(?<=[;|\t\r\n])(?=(?:[^\S\t\r\n]|\")*['{_STARTS}])")
_LATER_APOSTROPHE = re.compile(r"(?<=[;|\t\r\n])'")
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
"""Control characters but for tabs and line breaks, and marks of the direction of writing."""


def encodable(text: str) -> str:
    """Return the text with backslash escapes for what UTF-8 cannot hold (lone surrogates)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def csv_text(text: str) -> str:
    """Return the text as a cell of a table.

    A spreadsheet runs a cell as a formula if it begins with = + - @, also behind a tab, line break
    or blank. Such text gets a leading apostrophe, and so does text that has one already. Where a
    cell is split at semicolons, tabs or bars, or a line break begins a new row, every part is a cell,
    and gets its own. To restore the exact text, remove one leading apostrophe of every part:
    plain_text. What would move a terminal's cursor or turn the direction of writing, and NUL, at
    which many readers of CSV stop, becomes a backslash escape.
    """
    text = _UNSHOWN.sub(lambda found: _escaped(found[0]), encodable(text))
    text = _LATER_FORMULA.sub("'", text)
    if text[:1].isspace() or text.startswith(("'", *_FORMULA_STARTS)):
        return "'" + text
    return text


def plain_text(cell: str) -> str:
    """Return the text from which csv_text made a cell, except for what it escaped."""
    return _LATER_APOSTROPHE.sub("", cell.removeprefix("'"))


def printable(text: str) -> str:
    """Return the text as one line of UTF-8: anything unprintable, undecodable bytes too, as a
    backslash escape.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
