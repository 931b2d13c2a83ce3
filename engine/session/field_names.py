"""Keep the names of a session's fields unique within their slide."""

from __future__ import annotations

__all__ = ["FieldNames"]


class FieldNames:
    """Remember the names that were given, 8 bytes each as a hash, and rename what comes again.

    Not locked: the session's lock guards it.
    """

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._repeats: dict[int, int] = {}
        self._numbered = False

    def unique(self, slide: str, field: str, *, number: int) -> str:
        """Return the name of a frame: `field`, with ~2, ~3, … if the slide has that name already.

        field: '' for frame-NUMBER. number: of the frame in its session.
        """
        name = field or f"frame-{number:06d}"
        key = hash((slide, name))
        if not field and key not in self._taken:
            self._numbered = True
            return name  # numbers do not come again, and need no memory
        repeat = self._repeats.get(key, 1)
        found = name
        while hash((slide, found)) in self._taken or self._is_numbered(found, number):
            repeat += 1
            found = f"{name}~{repeat}"
        if repeat > 1:
            self._repeats[key] = repeat
        self._taken.add(hash((slide, found)))
        return found

    def _is_numbered(self, name: str, number: int) -> bool:
        """Return whether a name may be that of an earlier frame that was given none."""
        digits = name.removeprefix("frame-")
        is_number = digits != name and digits.isascii() and digits.isdecimal()
        return self._numbered and is_number and int(digits[:18]) < number
