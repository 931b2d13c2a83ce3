"""How much of a cell type a slide holds, in the grades that laboratories report."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT", "ICSH_2015", "CutOffs", "cut_offs", "grade"]

ICSH_2015 = (
    "L. Palmer et al., ICSH recommendations for the standardization of nomenclature and grading of peripheral "
    "blood cell morphological features, Int. J. Lab. Hematol. 37 (2015) 287-303, doi:10.1111/ijlh.12327"
)


@dataclass(frozen=True, kw_only=True)
class CutOffs:
    """Shares of the red cells, 0..1, compared as they are, without rounding.

    few: whether any at all are grade 1 (few); else what is below `moderate` is not reported, grade 0.
    moderate: grade 2 from this share on.
    many: grade 3 over this share.
    published: from ICSH_2015; else a default of this program.
    """

    moderate: float
    many: float
    few: bool = False
    published: bool = True


_SIZE_AND_COLOUR = CutOffs(moderate=0.11, many=0.20)
_SHAPE = CutOffs(moderate=0.05, many=0.20)
_RARE = CutOffs(moderate=0.01, many=0.02)

DEFAULT = CutOffs(moderate=0.05, many=0.20, published=False)
"""For types that the recommendations do not name: what they give for most shapes."""

_BY_TYPE = {
    "macrocyte": _SIZE_AND_COLOUR,
    "microcyte": _SIZE_AND_COLOUR,
    "hypochromia": _SIZE_AND_COLOUR,
    "hypochromic_cell": _SIZE_AND_COLOUR,
    "oval_macrocyte": CutOffs(moderate=0.02, many=0.05),
    "polychromatic_cell": _SHAPE,
    "acanthocyte": _SHAPE,
    "burr_cell": _SHAPE,
    "echinocyte": _SHAPE,
    "elliptocyte": _SHAPE,
    "ovalocyte": _SHAPE,
    "spherocyte": _SHAPE,
    "stomatocyte": _SHAPE,
    "target_cell": _SHAPE,
    "teardrop": _SHAPE,
    "teardrop_cell": _SHAPE,
    "dacrocyte": _SHAPE,
    "basophilic_stippling": _SHAPE,
    "bite_cell": _RARE,
    "blister_cell": _RARE,
    "irregularly_contracted_cell": _RARE,
    "sickle_cell": _RARE,
    "elongated_sickle": _RARE,
    "schistocyte": CutOffs(moderate=0.01, many=0.02, few=True),
    "howell_jolly_body": CutOffs(moderate=0.02, many=0.03),
    "pappenheimer_body": CutOffs(moderate=0.02, many=0.03),
}


def cut_offs(type_name: str) -> CutOffs:
    """Those of a pack's type; DEFAULT if the recommendations have none for it."""
    return _BY_TYPE.get(type_name, DEFAULT)


def grade(fraction: float, type_name: str) -> int:
    """0 (not reported), 1 (few, 1+), 2 (moderate, 2+) or 3 (many, 3+).

    fraction: 0..1, of the red cells, that are of the type.

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
