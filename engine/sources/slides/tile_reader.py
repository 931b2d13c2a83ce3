"""The tiles of whole slides, read ahead, those that show nothing but background left out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rbc_engine.closing import Closing
from rbc_engine.errors import ImageError
from rbc_engine.lanes.tiles import OVERLAP_CANVAS_PX, Tile, TilePlan, plan_tiles
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.sources.images.ahead import ReadAhead
from rbc_engine.sources.slides.base import Box, Slide
from rbc_engine.sources.slides.open import open_slide
from rbc_engine.text import printable
from rbc_engine.types.arrays import UInt8
from rbc_engine.types.frames import Frame, SlideRef

__all__ = [
    "BLANK_LEVELS",
    "SlideEnd",
    "SlideSource",
    "SlideStart",
    "SlideStep",
    "TileRead",
    "shows_only_background",
]

BLANK_LEVELS = 8
"""Grey levels.

The palest cell of the smears that the shipped pack was trained on differs from its surroundings
by 22."""

_SPOTS_PER_CELL = 4
"""A tile is decided in spots; the smallest region that the pack looks for has this many across."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SlideStart:
    """Announce a slide that was opened; its tiles follow, row by row.

    record: of run.json. notes: what is to be known of it, in one line each.
    """

    ref: SlideRef
    plan: TilePlan
    record: dict[str, Any]
    notes: Sequence[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class TileRead:
    """Hold a tile: its frame, or none if it shows only background (error is None) or is damaged.

    seconds, cpu_seconds: that reading it took, of a thread that waits for its turn on the cores as
        well.
    """

    ref: SlideRef
    tile: Tile
    frame: Frame | None = None
    error: str | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class SlideEnd:
    """End the tiles of a slide. error: why it cannot be used, if it never started."""

    ref: SlideRef
    error: str | None = None


SlideStep = SlideStart | TileRead | SlideEnd


@dataclass(eq=False, kw_only=True)
class _Open:
    """Hold a slide whose tiles are being read. failed: one is damaged, so the rest is skipped."""

    ref: SlideRef
    slide: Slide
    plan: TilePlan
    blank_level: int | None
    spot_px: float
    failed: bool = False


@dataclass(eq=False)
class _Job:
    opened: _Open
    tile: Tile


@dataclass(eq=False)
class _Close:
    opened: _Open
    end: SlideEnd = field(init=False)

    def __post_init__(self) -> None:
        self.end = SlideEnd(ref=self.opened.ref)


class SlideSource(Closing):
    """Yield tiles of slides, slide by slide, read ahead in threads: a Source of SlideSteps.

    Of every slide come a SlideStart, its tiles row by row, and a SlideEnd; or a SlideEnd alone if
    it cannot be used. After a damaged tile no more of that slide are read.

    settings: the pack's, for the scale. pixel_um: width of a level-0 pixel in µm, instead of what
        the files say.
    workers, ahead: as in FileSource, in tiles. tile_canvas_px, overlap_canvas_px: as in plan_tiles.
    """

    notes: Sequence[str] = ()  # those of a slide come with its SlideStart

    def __init__(
        self,
        refs: Sequence[SlideRef],
        *,
        settings: DetectorSettings,
        pixel_um: float | None,
        workers: int,
        ahead: int,
        tile_canvas_px: int | None = None,
        overlap_canvas_px: int = OVERLAP_CANVAS_PX,
    ) -> None:
        self._refs = refs
        self._settings = settings
        self._pixel_um = pixel_um
        self._tile_canvas_px = tile_canvas_px
        self._overlap_canvas_px = overlap_canvas_px
        self._opened: list[Slide] = []
        self._steps = ReadAhead(self._do, self._plan(), workers=workers, ahead=ahead)

    def __iter__(self) -> Iterator[SlideStep]:
        for step in self._steps:
            if isinstance(step, _Close):  # in order: all its tiles have been read
                step.opened.slide.close()
                self._opened.remove(step.opened.slide)
                yield step.end
            else:
                yield step

    def close(self) -> None:
        """Stop the threads and close the slides. May be called again."""
        self._steps.close()
        while self._opened:
            self._opened.pop().close()

    def _plan(self) -> Iterator[SlideStart | SlideEnd | _Job | _Close]:
        for ref in self._refs:
            try:
                opened, start = self._open(ref)
            except ImageError as error:
                yield SlideEnd(ref=ref, error=str(error))
                continue
            yield start
            for tile in opened.plan.tiles():
                if opened.failed:
                    break
                yield _Job(opened, tile)
            yield _Close(opened)

    def _open(self, ref: SlideRef) -> tuple[_Open, SlideStart]:
        slide = open_slide(ref.path, name=ref.field)
        self._opened.append(slide)
        try:
            level0 = slide.levels[0]
            pixel_um, origin, by, notes = self._scale(slide)
            plan = plan_tiles(
                (level0.height, level0.width),
                pixel_um=pixel_um,
                settings=self._settings,
                tile_canvas_px=self._tile_canvas_px,
                overlap_canvas_px=self._overlap_canvas_px,
            )
        except ImageError as error:
            self._opened.pop().close()
            raise ImageError(f"{printable(ref.field)}: {error}") from error
        spot_px = self._settings.anchor_sizes_px[0][0] / _SPOTS_PER_CELL / plan.canvas_scale
        fine_enough = [i for i, level in enumerate(slide.levels) if level.down <= spot_px]
        opened = _Open(
            ref=ref,
            slide=slide,
            plan=plan,
            blank_level=fine_enough[-1] if fine_enough[-1:] != [0] and fine_enough else None,
            spot_px=spot_px,
        )
        record = {
            "slide": ref.slide,
            "field": ref.field,
            "reader": slide.reader,
            "levels": [[level.width, level.height] for level in slide.levels],
            "um_per_px": pixel_um,
            "um_per_px_from": origin,
            "um_per_px_by": by,
            "origin": list(slide.origin),
            "canvas_px_per_px": plan.canvas_scale,
            "tile_px": plan.columns.side_px,
            "overlap_px": plan.columns.overlap_px,
        }
        return opened, SlideStart(
            ref=ref, plan=plan, record=record, notes=[f"{printable(ref.field)}: {n}" for n in notes]
        )

    def _scale(self, slide: Slide) -> tuple[float | None, str, str | None, list[str]]:
        """Return the µm per pixel to use, where they come from, what states them, and notes."""
        notes = list(slide.notes)
        if slide.origin != (0, 0):
            notes.append(
                f"only its scanned part is read; x {slide.origin[0]}, y {slide.origin[1]} of the "
                "file is 0, 0 here, as in QuPath"
            )
        stated = None if slide.scale is None else slide.scale.pixel_um
        if self._pixel_um is not None:
            if stated is not None and abs(stated - self._pixel_um) > 0.02 * stated:
                notes.append(
                    f"it says {stated:.4g} µm per pixel; --um-per-px {self._pixel_um:.4g} is used"
                )
            return self._pixel_um, "given", None, notes
        if slide.scale is not None and self._settings.um_per_canvas_px is not None:
            return stated, "stated", slide.scale.by, notes
        why = (
            "does not say how many µm a pixel is wide"
            if stated is None
            else f"says {stated:.4g} µm per pixel, but the pack does not know its own scale"
        )
        remedy = (
            "; if cells come out too small or too large, give --um-per-px" if stated is None else ""
        )
        notes.append(f"it {why}: taken to be as fine as a field of 640x480 px{remedy}")
        return None, "assumed", None, notes

    def _do(
        self, step: SlideStart | SlideEnd | _Job | _Close
    ) -> SlideStart | SlideEnd | TileRead | _Close:
        if not isinstance(step, _Job):
            return step
        opened, tile, ref = step.opened, step.tile, step.opened.ref
        started, cpu_started = time.perf_counter(), time.thread_time()
        frame, reason = None, None
        try:
            pixels = None if opened.failed else _tile_pixels(opened, tile)
            if pixels is not None:
                frame = Frame(pixels=pixels, slide=ref.slide, field=ref.field, canvas=tile.fit)
        except ImageError as error:
            opened.failed = True
            x, y = tile.box[:2]
            reason = f"{printable(ref.field)}: at x {x}, y {y}: {error}"
        return TileRead(
            ref=ref,
            tile=tile,
            frame=frame,
            error=reason,
            seconds=time.perf_counter() - started,
            cpu_seconds=time.thread_time() - cpu_started,
        )


def shows_only_background(pixels: UInt8, spot_px: float) -> bool:
    """Return whether no two spots of an image differ by more than BLANK_LEVELS in any channel.

    Then no cell in it could be seen against its surroundings.

    spot_px: side of a spot in pixels of the image, at least 1; a spot's colour is the mean of its
    pixels, so that grain does not count.
    """
    side = max(int(spot_px), 1)
    height, width = (max(length // side, 1) for length in pixels.shape[:2])
    whole = pixels[: height * side, : width * side]
    # Sums of rows first: contiguous, and a tenth of the time of a mean over blocks.
    rows = np.add.reduceat(whole, np.arange(0, whole.shape[0], side), axis=0, dtype=np.uint32)
    sums = np.add.reduceat(rows, np.arange(0, whole.shape[1], side), axis=1)
    spots = sums.reshape(-1, 3)
    area = side * side
    if min(pixels.shape[:2]) < side:
        return False
    spread = spots.max(axis=0).astype(np.int64) - spots.min(axis=0)
    return bool((spread <= BLANK_LEVELS * area).all())


def _tile_pixels(opened: _Open, tile: Tile) -> UInt8 | None:
    """Return the pixels of a tile; None if it shows only background.

    Decided on the coarsest level that shows the smallest cell and holds the whole tile, or on
    level 0.
    """
    slide, spot_px = opened.slide, opened.spot_px
    if opened.blank_level is not None:
        level = slide.levels[opened.blank_level]
        x0, y0, x1, y1 = (side / level.down for side in tile.box)
        box = Box(
            min(int(x0), level.width - 1),
            min(int(y0), level.height - 1),
            min(int(np.ceil(x1)), level.width),
            min(int(np.ceil(y1)), level.height),
        )
        pixels, all_there = slide.read(opened.blank_level, box)
        if all_there and shows_only_background(pixels, spot_px / level.down):
            return None
        decided = all_there
    else:
        decided = False
    pixels, _ = slide.read(0, Box(*tile.box))
    if not decided and shows_only_background(pixels, spot_px):
        return None
    return pixels
