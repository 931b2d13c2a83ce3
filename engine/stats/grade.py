"""Grade how much of a cell type a slide holds, as laboratories report it.

Regions with the flag border do not count, neither as holding a type nor in the total: a cell that
the edge of its field cuts has lost its shape, and is easily mistaken for a schistocyte.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rbc_engine.stats.counts import SlideCounts
from rbc_engine.stats.wilson import wilson_interval

__all__ = [
    "CAVEAT",
    "DEFAULT",
    "ICSH_2015",
    "CutOffs",
    "Grades",
    "TypeShare",
    "cut_offs",
    "grade",
    "grade_text",
    "type_shares",
]

ICSH_2015 = (
    "L. Palmer et al., ICSH recommendations for the standardization of nomenclature and grading of "
    "peripheral blood cell morphological features, Int. J. Lab. Hematol. 37 (2015) 287-303, "
    "doi:10.1111/ijlh.12327"
)

CAVEAT = (
    "The cut-offs were transcribed from memory, without access to the paper: check them against it "
    "before you rely on a grade"
)


@dataclass(frozen=True, kw_only=True)
class CutOffs:
    """Hold the cut-offs of grades as shares of the red cells, 0..1, compared without rounding.

    few: whether any at all are grade 1 (few); else a share below `moderate` is not reported, grade
    0.
    moderate: grade 2 from this share on.
    many: grade 3 over this share.
    published: in ICSH_2015; else a default of this program.
    """

    moderate: float
    many: float
    few: bool = False
    published: bool = True


_SIZE_AND_COLOUR = CutOffs(moderate=0.11, many=0.20)
_SHAPE = CutOffs(moderate=0.05, many=0.20)
_RARE = CutOffs(moderate=0.01, many=0.02)

DEFAULT = CutOffs(moderate=0.05, many=0.20, published=False)
"""For types that the recommendations do not name: their cut-offs for most shapes."""

# The types of the schemas chula12 and scd6 that the recommendations name.
_BY_TYPE = {
    "macrocyte": _SIZE_AND_COLOUR,
    "microcyte": _SIZE_AND_COLOUR,
    "hypochromia": _SIZE_AND_COLOUR,
    "burr_cell": _SHAPE,
    "echinocyte": _SHAPE,
    "elliptocyte": _SHAPE,
    "ovalocyte": _SHAPE,
    "spherocyte": _SHAPE,
    "stomatocyte": _SHAPE,
    "target_cell": _SHAPE,
    "teardrop": _SHAPE,
    "elongated_sickle": _RARE,
    "schistocyte": CutOffs(moderate=0.01, many=0.02, few=True),
}


def cut_offs(type_name: str) -> CutOffs:
    """Return the cut-offs of a pack's type; DEFAULT if the recommendations have none for it."""
    return _BY_TYPE.get(type_name, DEFAULT)


def grade(fraction: float, type_name: str) -> int:
    """Return the grade: 0 (not reported), 1 (few, 1+), 2 (moderate, 2+) or 3 (many, 3+).

    fraction: 0..1, share of the red cells that are of the type.

    Raises ValueError if the fraction is outside its range.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in 0..1 (got {fraction})")
    cuts = cut_offs(type_name)
    if fraction > cuts.many:
        return 3
    if fraction >= cuts.moderate:
        return 2
    return int(cuts.few and fraction > 0)


@dataclass(frozen=True)
class Grades:
    """Hold the grades of a share and of the ends of its interval."""

    grade: int
    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class TypeShare:
    """Count the regions of a slide that hold a type, among those clear of the border.

    share, low, high: 0..1, with the ends of the 95 % Wilson interval. grades: None for a type that
    is not abnormal.
    """

    count: int
    share: float
    low: float
    high: float
    grades: Grades | None


def type_shares(
    counts: SlideCounts, types: Sequence[str], *, abnormal: Collection[str]
) -> list[TypeShare | None]:
    """Return the shares of each type, in order; None if a slide has no region clear of the border.

    types: of the counts. abnormal: the types that have grades.
    """
    if not counts.whole:
        return [None] * len(types)
    shares: list[TypeShare | None] = []
    for name, count in zip(types, counts.whole_type_counts.tolist(), strict=True):
        share = count / counts.whole
        low, high = wilson_interval(count, counts.whole)
        grades = None
        if name in abnormal:
            grades = Grades(*(grade(at, name) for at in (share, low, high)))
        shares.append(TypeShare(count=count, share=share, low=low, high=high, grades=grades))
    return shares


def grade_text(grade: int) -> str:
    """Format a grade as laboratories write it: 0, 1+, 2+, 3+."""
    return f"{grade}+" if grade else "0"
