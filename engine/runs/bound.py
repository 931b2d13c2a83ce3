"""Find which part of the path limits the whole, and what a faster one would give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["bound_record", "speedup"]


def speedup(share: float, *, factor: float = 2.0) -> float:
    """Return the speed-up of the whole if a part with this share of its time becomes `factor` times
    as fast.
    """
    return 1 / (1 - share + share / factor)


def bound_record(stage_seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return `bound` of run.json: the stage with most of the lanes' and threads' time, and the gain
    from halving it.
    """
    total = sum(stage_seconds.values())
    stage = max(stage_seconds, key=lambda name: stage_seconds[name])
    share = stage_seconds[stage] / total if total else 0.0
    return {"stage": stage, "share": share, "speedup_if_twice_as_fast": speedup(share)}
