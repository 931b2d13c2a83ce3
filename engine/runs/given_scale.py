"""The width of a pixel that a caller gives: whether it can be, and whether a pack can use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbc_engine.errors import UsageError

if TYPE_CHECKING:
    from rbc_engine.packs.pack import Pack

__all__ = ["check_um_per_px", "knows_scale", "refuse_unused"]

_LEAST_UM, _MOST_UM = 0.001, 100


def check_um_per_px(um_per_px: float | None) -> None:
    """Raises UsageError for a width of a pixel, in µm, that no microscope gives."""
    if um_per_px is not None and not _LEAST_UM <= um_per_px <= _MOST_UM:
        raise UsageError(f"--um-per-px must lie in {_LEAST_UM}..{_MOST_UM} µm (got {um_per_px})")


def knows_scale(pack: Pack) -> bool:
    """Returns whether a pack knows its own scale, so that a given one tells it something."""
    return pack.manifest.detector.um_per_canvas_px is not None


def refuse_unused(um_per_px: float | None, pack: Pack) -> None:
    """Raises UsageError if a width of a pixel was given to a pack that cannot use it."""
    if um_per_px is not None and not knows_scale(pack):
        raise UsageError(
            f"--um-per-px {um_per_px} has no effect: pack {pack.name} does not know its own scale; leave it out"
        )
