"""Define the texts and numbers that a pack may carry for people: what is printed must not deceive."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rbc_engine.text import printable

__all__ = ["Count", "Note", "Notes", "PlainText"]


def _plain(text: str) -> str:
    """Return the text. Raises ValueError if a terminal would not show it as it is: escapes, line
    breaks, and characters that turn the direction of writing.
    """
    if printable(text) != text:
        raise ValueError("must have no control characters, line breaks or invisible characters")
    return text


PlainText = Annotated[str, Field(max_length=2000), AfterValidator(_plain)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Note = (
    PlainText
    | Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | bool
)
Notes = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)], Note],
    Field(max_length=1000),
]
