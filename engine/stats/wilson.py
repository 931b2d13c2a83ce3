"""Compute confidence intervals of proportions."""

from __future__ import annotations

import math

__all__ = ["wilson_interval"]

_Z_95 = 1.959963984540054
"""The standard normal distribution has 95 % of its mass between -z and z."""


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion, without continuity correction: low and high,
    0..1.

    Unlike the textbook's p ± z·sqrt(p(1-p)/n), it never leaves 0..1 and keeps its coverage for few
    trials and for rare successes. It assumes independent trials.

    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212; recommended by Brown, Cai and DasGupta,
    Stat. Sci. 16 (2001) 101-133.

    Raises ValueError unless 0 <= successes <= trials and trials >= 1.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"successes must lie in 0..trials and trials must be at least 1 (got {successes} of "
            f"{trials})"
        )
    z2 = _Z_95**2
    # Both ends by the count on their own side, so that none of 40 gives exactly 0 and all of 40
    # exactly 1.
    low = _lower_end(successes, trials, z2)
    high = 1.0 - _lower_end(trials - successes, trials, z2)
    return low, high


def _lower_end(successes: int, trials: int, z2: float) -> float:
    """Return centre - half width, in the form that does not cancel: their product over centre +
    half width.
    """
    failures = trials - successes
    root = math.sqrt(z2 * (z2 + 4.0 * successes * failures / trials))
    return 2.0 * successes**2 / (trials * (2.0 * successes + z2 + root))
