"""Define the options of a session, as Engine.session takes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rbc_engine.errors import UsageError
from rbc_engine.session.pixels import PixelFormat
from rbc_engine.types.ends import Ended, PositionUm

__all__ = [
    "ON_FULL",
    "ORDERS",
    "PIXEL_UM",
    "OnEnded",
    "SessionOptions",
    "check_number",
    "check_position",
    "check_seconds",
    "is_number",
    "needs_position",
]

OnEnded = Callable[[Ended], object]

ON_FULL = ("block", "drop_oldest", "drop_newest", "reject")
ORDERS = ("submitted", "ready")
PIXEL_UM = (0.001, 100)
"""The widths of a pixel that a microscope may give, µm."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Hold the options described at Engine.session. Raises UsageError for a value that breaks its
    rule.
    """

    on_full: str = "block"
    max_in_flight: int | None = None
    max_batch: int | None = None
    submit_timeout_s: float = 10.0
    max_age_s: float | None = None
    order: str = "ready"
    max_unread: int = 1000
    callback_timeout_s: float = 10.0
    slide: str = "live"
    pixel_um: float | None = None
    pixels: PixelFormat = field(default_factory=PixelFormat)
    keep_frames: bool = False
    warm_up_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("on_full", self.on_full, ON_FULL),
            ("order", self.order, ORDERS),
        ):
            if value not in choices:
                raise UsageError(f"{name} must be one of {', '.join(choices)} (got {value!r})")
        for name in ("max_in_flight", "max_batch", "max_unread"):
            number = getattr(self, name)
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if number is not None and not (whole and number >= 1):
                raise UsageError(f"{name} must be a whole number, at least 1 (got {number!r:.40})")
        check_seconds("submit_timeout_s", self.submit_timeout_s)
        check_seconds("max_age_s", self.max_age_s)
        check_seconds("callback_timeout_s", self.callback_timeout_s)
        check_number("pixel_um", self.pixel_um, *PIXEL_UM, unit=" µm")
        if not isinstance(self.pixels, PixelFormat):
            raise UsageError(f"pixels must be a PixelFormat (got {self.pixels!r:.40})")
        if self.warm_up_hw is not None and min(self.warm_up_hw) < 1:
            raise UsageError(
                f"warm_up_hw must be a height and a width in px (got {self.warm_up_hw})"
            )


def check_seconds(name: str, seconds: float | None) -> None:
    """Raise UsageError for seconds that are infinite or negative; None is allowed."""
    if seconds is not None and not (is_number(seconds) and seconds >= 0):
        raise UsageError(
            f"{name} must be a finite number of seconds, at least 0 (got {seconds!r:.40})"
        )


def check_number(
    name: str, value: float | None, least: float, most: float, *, unit: str = ""
) -> None:
    """Raise UsageError for what is no number from least to most; None is allowed."""
    if value is not None and not (is_number(value) and least <= value <= most):
        raise UsageError(f"{name} must lie in {least}..{most}{unit} (got {value!r:.40})")


def is_number(value: object) -> bool:
    """Return whether a value is a finite number, and no text or truth."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value)


def needs_position(on_ended: OnEnded | None) -> bool:
    """Return whether a callback is of a SlideMonitor with a stage.

    It would refuse a frame without a position when it is too late to tell whoever submitted it.
    """
    return bool(getattr(getattr(on_ended, "__self__", None), "needs_position", False))


def check_position(position_um: PositionUm | None, *, needed: bool = False) -> None:
    """Raise UsageError for a position that is not two finite numbers. needed: None is no position
    either.
    """
    if position_um is None and needed:
        raise UsageError(
            "position_um is missing: on_ended is of a SlideMonitor with a stage, which counts by "
            "the position of every frame; submit frames with position_um=(x, y) in µm, or make the "
            "monitor without stage"
        )
    if position_um is None:
        return
    pair = isinstance(position_um, tuple | list | np.ndarray) and len(position_um) == 2
    if not pair or not all(map(is_number, position_um)):
        raise UsageError(
            f"position_um must be two finite numbers, x and y in µm (got {position_um})"
        )
