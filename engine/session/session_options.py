"""Define the options of a session, as Engine.session takes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from rbc_engine.errors import UsageError
from rbc_engine.session.pixels import PixelFormat
from rbc_engine.types.ends import Ended, PositionUm

__all__ = ["ON_FULL", "ORDERS", "OnEnded", "SessionOptions"]

OnEnded = Callable[[Ended], object]

ON_FULL = ("block", "drop_oldest", "drop_newest", "reject")
ORDERS = ("submitted", "ready")


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
            if number is not None and number < 1:
                raise UsageError(f"{name} must be at least 1 (got {number})")
        check_seconds("submit_timeout_s", self.submit_timeout_s)
        check_seconds("max_age_s", self.max_age_s)
        check_seconds("callback_timeout_s", self.callback_timeout_s)
        if self.pixel_um is not None and not 0.001 <= self.pixel_um <= 100:
            raise UsageError(f"pixel_um must lie in 0.001..100 µm (got {self.pixel_um})")
        if self.warm_up_hw is not None and min(self.warm_up_hw) < 1:
            raise UsageError(
                f"warm_up_hw must be a height and a width in px (got {self.warm_up_hw})"
            )


def check_seconds(name: str, seconds: float | None) -> None:
    """Raise UsageError for seconds that are infinite or negative; None is allowed."""
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError(f"{name} must be a finite number of seconds, at least 0 (got {seconds})")


def check_position(position_um: PositionUm | None) -> None:
    """Raise UsageError for a position that is not two finite numbers; None is allowed."""
    if position_um is None:
        return
    if len(position_um) != 2 or not all(math.isfinite(value) for value in position_um):
        raise UsageError(
            f"position_um must be two finite numbers, x and y in µm (got {position_um})"
        )
