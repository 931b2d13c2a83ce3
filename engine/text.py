"""Make text from outside (file names, messages that quote them) safe for files and their
readers.
"""

from __future__ import annotations

__all__ = ["csv_text", "encodable", "plain_text", "printable"]

_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are full-width ones, which spreadsheets in some languages treat alike."""


def encodable(text: str) -> str:
    """Return the text with backslash escapes for what UTF-8 cannot hold (lone surrogates)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def csv_text(text: str) -> str:
    """Return the text as a cell of a table.

    A spreadsheet runs a cell as a formula if it begins with = + - @, also behind a tab, line break
    or blank. Such text gets a leading apostrophe, and so does text that has one already: to restore
    the exact text, remove one leading apostrophe. NUL, at which many readers of CSV stop, becomes
    \\x00.
    """
    text = encodable(text).replace("\0", "\\x00")
    if text[:1].isspace() or text.startswith(("'", *_FORMULA_STARTS)):
        return "'" + text
    return text


def plain_text(cell: str) -> str:
    """Return the text from which csv_text made a cell, except for NULs and what UTF-8 cannot
    hold.
    """
    return cell.removeprefix("'")


def printable(text: str) -> str:
    """Return the text as one line of UTF-8: anything unprintable, undecodable bytes too, as a
    backslash escape.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
