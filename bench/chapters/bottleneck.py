"""Find what limits the engine: the part with most of the time, what a faster one would give, and
the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from rbc_engine.bench.chapters.stage_times import StageReport
from rbc_engine.bench.instruments.stopwatch import NETWORKS
from rbc_engine.runs.bound import speedup

__all__ = ["Bottleneck", "find_bottleneck"]


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """Describe the limiting part of the engine.

    part: its name. share: of the wall time.
    fields_per_s: of the measured run. if_twice_as_fast: if this part were. at_its_limit: if it ran
        at the machine's limit. all_at_their_limits: if every part with a known limit did, and the
        others as they do.
    outside_networks: share of the time outside the networks, idle cores included.
    """

    part: str
    share: float
    of_limit: float | None
    fields_per_s: float
    if_twice_as_fast: float
    at_its_limit: float | None
    all_at_their_limits: float
    networks_share: float
    outside_networks: float
    wall_over_networks: float

    def sentence(self) -> str:
        text = (
            f"{self.part} limits: {self.share:.0%} of the time; twice as fast, it would make "
            f"{self.if_twice_as_fast:.2f} fields/s of {self.fields_per_s:.2f}"
        )
        if self.at_its_limit is not None:
            text += f"; at its bound, {self.at_its_limit:.2f}"
        return text


def find_bottleneck(report: StageReport) -> Bottleneck:
    """Find the part with most of the time. Parts share the cores, so time saved in one goes to the
    others.
    """
    worst = max(report.parts, key=lambda part: part.seconds)
    rate = 1 / report.wall_seconds
    best_s = report.wall_seconds - sum(
        max(part.seconds - part.limit_seconds, 0.0)
        for part in report.parts
        if part.limit_seconds is not None
    )
    networks = sum(part.share for part in report.parts if part.name in NETWORKS.values())
    return Bottleneck(
        part=worst.name,
        share=worst.share,
        of_limit=worst.of_limit,
        fields_per_s=rate,
        if_twice_as_fast=rate * speedup(min(worst.share, 1.0)),
        at_its_limit=(
            rate * speedup(min(worst.share, 1.0), factor=1 / worst.of_limit)
            if worst.of_limit
            else None
        ),
        all_at_their_limits=1 / best_s,
        networks_share=networks,
        outside_networks=max(0.0, 1 - networks),
        wall_over_networks=report.wall_over_networks,
    )
