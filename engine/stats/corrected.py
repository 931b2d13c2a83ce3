"""The abnormal share of a slide, corrected by how often the pack is right about single regions."""

from __future__ import annotations

import math
from typing import Protocol

from rbc_engine.stats.wilson import Z_95

__all__ = ["Measured", "corrected_share"]


class Measured(Protocol):
    """Represent a rate measured as successes of trials: packs.manifest.Rate."""

    @property
    def successes(self) -> int: ...
    @property
    def trials(self) -> int: ...


def corrected_share(
    positive: int, regions: int, *, sensitivity: Measured | None, specificity: Measured | None
) -> tuple[float, float, float] | None:
    """Estimate the true share and its 95 % interval, each 0..1, from the regions called abnormal.

    The share is Rogan and Gladen's (Am. J. Epidemiol. 107 (1978) 71-76), the interval that of Lang
    and Reiczigel (Prev. Vet. Med. 113 (2014) 13-22), which takes in how surely sensitivity and
    specificity are known. Regions are taken as independent.

    None without regions or rates, or where the rates are no better than a guess.
    """
    if not regions or sensitivity is None or specificity is None:
        return None
    guess = (
        sensitivity.successes / sensitivity.trials + specificity.successes / specificity.trials - 1
    )
    if guess <= 0:
        return None
    false = 1 - specificity.successes / specificity.trials
    share = min(max((positive / regions - false) / guess, 0.0), 1.0)
    z2 = Z_95**2
    n = regions + z2
    p = (positive + z2 / 2) / n
    n_sensitivity, n_specificity = sensitivity.trials + 2, specificity.trials + 2
    se, sp = (
        (sensitivity.successes + 1) / n_sensitivity,
        (specificity.successes + 1) / n_specificity,
    )
    slope = se + sp - 1
    if slope <= 0:
        return share, 0.0, 1.0
    centre = min(max((p + sp - 1) / slope, 0.0), 1.0)
    of_se, of_sp = se * (1 - se) / n_sensitivity, sp * (1 - sp) / n_specificity
    shift = 2 * z2 * (centre * of_se - (1 - centre) * of_sp)
    spread = math.sqrt(p * (1 - p) / n + centre**2 * of_se + (1 - centre) ** 2 * of_sp) / slope
    low, high = (min(max(centre + shift + sign * Z_95 * spread, 0.0), 1.0) for sign in (-1, 1))
    return share, min(low, share), max(high, share)
