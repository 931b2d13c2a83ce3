"""Plan on paper: compute how many machines like this one are needed, from the measured rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Assumptions", "Plan", "make_plan"]


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Hold the assumptions of the plan, apart from the measured rate.

    fields_per_slide: images of one slide. slides_per_hour: of one scanner. slides: of the archive;
    days: its deadline. used: share of a machine's measured rate at which it is planned to be used.
    """

    fields_per_slide: int = 200
    slides_per_hour: float = 60.0
    scanners: tuple[int, ...] = (1, 10)
    slides: int = 1_000_000
    days: float = 30.0
    used: float = 0.7


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hold one plan.

    fields_per_s: needed. machines: like the measured one, at the assumed use.
    machine_hours: of the whole, None if it never ends. image_terabytes, result_gigabytes: of the
    whole, or per hour if it never ends.
    """

    name: str
    fields_per_s: float
    machines: int
    machine_hours: float | None
    image_terabytes: float
    result_gigabytes: float


def make_plan(
    *,
    fields_per_s: float,
    image_bytes: float,
    result_bytes: float,
    assumed: Assumptions | None = None,
) -> list[Plan]:
    """Plan for one scanner, ten, and an archive of a million slides.

    fields_per_s: of one machine, measured. image_bytes, result_bytes: of one field, measured.
    """
    assumed = assumed or Assumptions()
    usable = fields_per_s * assumed.used
    plans = []
    for scanners in assumed.scanners:
        hourly = scanners * assumed.slides_per_hour * assumed.fields_per_slide
        plans.append(
            Plan(
                name=f"{scanners} slide scanner{'s' if scanners > 1 else ''}, per hour",
                fields_per_s=hourly / 3600,
                machines=math.ceil(hourly / 3600 / usable),
                machine_hours=None,
                image_terabytes=hourly * image_bytes / 1e12,
                result_gigabytes=hourly * result_bytes / 1e9,
            )
        )
    fields = assumed.slides * assumed.fields_per_slide
    needed = fields / (assumed.days * 86400)
    plans.append(
        Plan(
            name=f"{assumed.slides:,} slides in {assumed.days:g} days",
            fields_per_s=needed,
            machines=math.ceil(needed / usable),
            machine_hours=fields / usable / 3600,
            image_terabytes=fields * image_bytes / 1e12,
            result_gigabytes=fields * result_bytes / 1e9,
        )
    )
    return plans
