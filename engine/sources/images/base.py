"""What a reader of image files gives: pixels, and what the file says of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rbc_engine.sources.stated_scale import StatedScale
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import FieldRef, Frame

__all__ = ["Picture", "PictureNotes"]

_MOST_NOTES = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """Hold one decoded image.

    pixels: uint8 [H, W, 3] RGB, upright.
    scale: what the file states, None if it states nothing that a microscope can have.
    notes: what was assumed to read it, each the same for every image of that kind.
    """

    pixels: UInt8
    scale: StatedScale | None = None
    notes: Sequence[str] = ()


class PictureNotes:
    """Make frames of pictures, and say at the end what there was to say of them. For any thread.

    pixel_um: width of a pixel in µm that the user gave for all; None leaves each its own.
    """

    def __init__(self, pixel_um: float | None) -> None:
        self._pixel_um = pixel_um
        self._lock = threading.Lock()
        self._scales: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def frame(self, ref: FieldRef, picture: Picture, *, pixels: object = None) -> Frame:
        """Make the frame of a picture. pixels: other than the picture's own, on a device."""
        scale = picture.scale if self._pixel_um is None else None
        with self._lock:
            if scale is not None:
                self._scales[scale.by] += 1
            for note in picture.notes:
                self._notes[note] += 1
                self._first.setdefault(note, ref.field)
        return Frame(
            pixels=picture.pixels if pixels is None else pixels,
            slide=ref.slide,
            field=ref.field,
            pixel_um=self._pixel_um if scale is None else scale.pixel_um,
            pixel_um_from="given" if scale is None else "stated",
        )

    def lines(self) -> list[str]:
        """Say it, in one line a kind."""
        with self._lock:
            lines = [
                f"{count} fields state their scale themselves, by {by}: used (um_per_px in "
                f"fields.csv); --um-per-px overrides it"
                for by, count in sorted(self._scales.items())
            ]
            notes = self._notes.most_common()
        lines += [
            f"{count} fields, the first of them {printable(self._first[note])}: {note}"
            for note, count in notes[:_MOST_NOTES]
        ]
        if len(notes) > _MOST_NOTES:
            lines.append(f"and {len(notes) - _MOST_NOTES} more notes of this kind")
        return lines
